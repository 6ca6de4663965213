package blob

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
)

// s3Part is what a writer holds in memory. Objects up to it are one request;
// larger ones are uploaded in parts, 10,000 at most, and appear when these are
// put together.
const s3Part = 16 << 20

const s3Put = "s3:PutObject"

type s3Sink struct {
	ctx    context.Context
	trail  *trail
	bucket s3Bucket
	key    string
	cond   condition
	meta   map[string]string
	buf    bytes.Buffer
	size   int64
	upload *string // nil until the first part
	parts  []types.CompletedPart
}

func (b s3Bucket) create(ctx context.Context, key string, cond condition, _ int64) (sink, error) {
	meta := map[string]string{marker: rand.Text()}
	t := &trail{}
	return &s3Sink{ctx: withTrail(ctx, t), trail: t, bucket: b, key: key, cond: cond, meta: meta}, nil
}

func (s *s3Sink) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		if s.buf.Len() == s3Part {
			if err := s.uploadPart(); err != nil {
				return n, s3Error(err, s3Put)
			}
		}
		k, _ := s.buf.Write(p[:min(len(p), s3Part-s.buf.Len())])
		p, n, s.size = p[k:], n+k, s.size+int64(k)
	}
	return n, nil
}

func (s *s3Sink) uploadPart() error {
	if s.upload == nil {
		u, err := s.bucket.CreateMultipartUpload(s.ctx, &s3.CreateMultipartUploadInput{
			Bucket: &s.bucket.name, Key: &s.key, Metadata: s.meta,
		})
		if err != nil {
			return err
		}
		s.upload = u.UploadId
	}
	number := aws.Int32(int32(len(s.parts) + 1))
	part, err := s.bucket.UploadPart(s.ctx, &s3.UploadPartInput{
		Bucket: &s.bucket.name, Key: &s.key, UploadId: s.upload, PartNumber: number,
		Body: bytes.NewReader(s.buf.Bytes()),
	})
	if err != nil {
		return err
	}
	s.buf.Reset()
	s.parts = append(s.parts, types.CompletedPart{
		PartNumber: number, ETag: part.ETag,
		ChecksumCRC32: part.ChecksumCRC32, ChecksumCRC32C: part.ChecksumCRC32C, ChecksumCRC64NVME: part.ChecksumCRC64NVME,
		ChecksumSHA1: part.ChecksumSHA1, ChecksumSHA256: part.ChecksumSHA256,
	})
	return nil
}

// commit publishes by one request, either way. The modification time is this
// machine's: S3 tells its own only when asked again.
func (s *s3Sink) commit(ctx context.Context) (Object, error) {
	etag, err := s.publish(withTrail(ctx, s.trail))
	if err == nil {
		return Object{URL: s.key, Size: s.size, ETag: etag, ModTime: time.Now()}, nil
	}
	s.abort()
	var api smithy.APIError
	noBucket := errors.As(err, &api) && api.ErrorCode() == "NoSuchBucket"
	code := s3Code(err)
	stands := !noBucket && (code == http.StatusPreconditionFailed || code == http.StatusConflict || code == http.StatusNotFound)
	if stands || s.trail.unclear() && !unsent(err) {
		// Perhaps its own work: the answer to an earlier request was lost.
		there, meta, lookErr := s.bucket.head(ctx, s.key)
		if lookErr == nil && meta[marker] == s.meta[marker] {
			return there, nil
		}
		// 404 may also be the upload's end (a lifecycle rule).
		if stands && code != http.StatusNotFound && s.cond != (condition{}) || s.cond.broken(there, lookErr) {
			return Object{}, s.cond.lost()
		}
	}
	return Object{}, s3Error(err, s3Put)
}

func (s *s3Sink) publish(ctx context.Context) (etag string, err error) {
	var ifMatch, ifNoneMatch *string
	switch {
	case s.cond.absent:
		ifNoneMatch = aws.String("*")
	case s.cond.etag != "":
		ifMatch = &s.cond.etag
	}
	if s.upload == nil {
		out, err := s.bucket.PutObject(ctx, &s3.PutObjectInput{
			Bucket: &s.bucket.name, Key: &s.key, Metadata: s.meta, IfMatch: ifMatch, IfNoneMatch: ifNoneMatch,
			Body: bytes.NewReader(s.buf.Bytes()),
		})
		if err != nil {
			return "", err
		}
		return aws.ToString(out.ETag), nil
	}
	if s.buf.Len() > 0 {
		if err := s.uploadPart(); err != nil {
			return "", err
		}
	}
	out, err := s.bucket.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &s.bucket.name, Key: &s.key, UploadId: s.upload, IfMatch: ifMatch, IfNoneMatch: ifNoneMatch,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: s.parts},
	})
	if err != nil {
		return "", err
	}
	return aws.ToString(out.ETag), nil
}

// abort frees the parts, which cost money and are in no listing. The context
// may be the reason to abort, so that this needs its own.
func (s *s3Sink) abort() {
	if s.upload == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), 30*time.Second)
	defer cancel()
	// Best effort: the bucket's lifecycle rules clear what stays.
	_, _ = s.bucket.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &s.bucket.name, Key: &s.key, UploadId: s.upload})
	s.upload = nil
}
