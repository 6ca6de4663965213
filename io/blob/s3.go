package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"
)

// s3Client is Amazon S3, or a service that speaks its protocol. ETags are S3's.
type s3Client struct {
	*s3.Client
	transport *transport
	policy    retryPolicy
}

// s3Endpoint is the service in place of Amazon's, if any.
func s3Endpoint() string {
	if e := os.Getenv("AWS_ENDPOINT_URL_S3"); e != "" {
		return e
	}
	return os.Getenv("AWS_ENDPOINT_URL")
}

func newS3Client(endpoint string) (*s3Client, error) {
	p, err := currentPolicy()
	if err != nil {
		return nil, err
	}
	cfg, err := config.LoadDefaultConfig(context.Background())
	if err != nil {
		return nil, fmt.Errorf("no client for s3://: look at the AWS_* variables and ~/.aws: %w", err)
	}
	if cfg.Region == "" && endpoint != "" {
		cfg.Region = "us-east-1" // signatures need some region, other services have none
	}
	t := newTransport(p)
	cfg.HTTPClient = &http.Client{Transport: t, CheckRedirect: keepMethod}
	return &s3Client{transport: t, policy: p, Client: s3.NewFromConfig(cfg, func(o *s3.Options) {
		o.UsePathStyle = endpoint != "" // bucket.host names exist only at Amazon
		o.Retryer = s3Retryer(p)
		o.Logger = logging.Nop{} // errors are returned; a library does not print
	})}, nil
}

// s3Retryer is the SDK's with the package's policy.
func s3Retryer(p retryPolicy) aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = p.attempts
		o.RateLimiter = ratelimit.None
		o.Backoff = retry.BackoffDelayerFunc(func(n int, _ error) (time.Duration, error) { return p.pause(n), nil })
		verdict := retry.IsErrorRetryableFunc(func(err error) aws.Ternary {
			switch {
			case permanent(err):
				return aws.FalseTernary
			case transient(err), transientCodes[s3Code(err)]:
				return aws.TrueTernary
			}
			return aws.UnknownTernary
		})
		o.Retryables = append([]retry.IsErrorRetryable{retry.NoRetryCanceledError{}, verdict}, o.Retryables...)
	})
}

// keepMethod follows the redirects that repeat the request, as the SDK's own
// client does; the others would turn a write into a read.
func keepMethod(r *http.Request, _ []*http.Request) error {
	if code := r.Response.StatusCode; code != http.StatusTemporaryRedirect && code != http.StatusPermanentRedirect {
		return http.ErrUseLastResponse
	}
	return nil
}

func (c *s3Client) close() { c.transport.close() }

func (c *s3Client) bucket(name string) backend { return s3Bucket{c, name} }

type s3Bucket struct {
	*s3Client
	name string
}

func s3Code(err error) int {
	var r *awshttp.ResponseError
	if errors.As(err, &r) {
		return r.HTTPStatusCode()
	}
	return 0
}

func s3Error(err error, permission string) error {
	switch s3Code(err) {
	case http.StatusNotFound:
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	case http.StatusForbidden, http.StatusUnauthorized:
		return denied(permission, err)
	case http.StatusRequestedRangeNotSatisfiable:
		return errRange
	case http.StatusMovedPermanently:
		return fmt.Errorf("the bucket is in another region: set AWS_REGION: %w", err)
	}
	return err
}

// Without s3:ListBucket Amazon answers 403 also for an object that is missing.
const s3Read = "s3:GetObject, and s3:ListBucket to tell missing from forbidden"

func (b s3Bucket) head(ctx context.Context, key string) (Object, map[string]string, error) {
	h, err := b.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &b.name, Key: &key})
	if err != nil {
		return Object{}, nil, s3Error(err, s3Read)
	}
	return Object{
		URL: key, Size: aws.ToInt64(h.ContentLength), ETag: aws.ToString(h.ETag), ModTime: aws.ToTime(h.LastModified),
	}, h.Metadata, nil
}

func (b s3Bucket) stat(ctx context.Context, key string) (Object, error) {
	o, _, err := b.head(ctx, key)
	return o, err
}

func (b s3Bucket) age(ctx context.Context, key string) (Object, time.Duration, error) {
	return ageByDate(ctx, b, key)
}

func (b s3Bucket) list(ctx context.Context, s scope) iter.Seq2[Object, error] {
	return listPages(ctx, s, b.pages)
}

func (b s3Bucket) pages(ctx context.Context, prefix string, flat bool) iter.Seq2[[]Object, error] {
	return func(yield func([]Object, error) bool) {
		in := &s3.ListObjectsV2Input{Bucket: &b.name, Prefix: &prefix}
		if !flat {
			in.Delimiter = aws.String("/")
		}
		for pages := s3.NewListObjectsV2Paginator(b, in); pages.HasMorePages(); {
			p, err := pages.NextPage(ctx)
			if err != nil {
				yield(nil, s3Error(err, "s3:ListBucket"))
				return
			}
			page := make([]Object, 0, len(p.Contents)+len(p.CommonPrefixes))
			for _, o := range p.Contents {
				page = append(page, Object{
					URL: aws.ToString(o.Key), Size: aws.ToInt64(o.Size),
					ETag: aws.ToString(o.ETag), ModTime: aws.ToTime(o.LastModified),
				})
			}
			for _, f := range p.CommonPrefixes {
				page = append(page, Object{URL: aws.ToString(f.Prefix)})
			}
			if !yield(page, nil) {
				return
			}
		}
	}
}

func (b s3Bucket) open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, Object, error) {
	body, o, err := b.get(ctx, key, offset, length, "")
	if err != nil {
		return nil, Object{}, err
	}
	end := o.Size
	if length >= 0 {
		end = min(end, offset+length)
	}
	again := func(from int64) (io.ReadCloser, error) {
		body, _, err := b.get(ctx, key, from, end-from, o.ETag)
		return body, err
	}
	return &resuming{ctx: ctx, policy: b.policy, body: body, pos: offset, end: end, again: again}, o, nil
}

func (b s3Bucket) get(ctx context.Context, key string, offset, length int64, etag string) (io.ReadCloser, Object, error) {
	in := &s3.GetObjectInput{Bucket: &b.name, Key: &key}
	if length >= 0 {
		in.Range = aws.String(fmt.Sprintf("bytes=%d-%d", offset, offset+length-1))
	} else if offset > 0 {
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", offset))
	}
	if etag != "" {
		in.IfMatch = &etag
	}
	r, err := b.GetObject(ctx, in)
	if s3Code(err) == http.StatusPreconditionFailed {
		return nil, Object{}, ErrChanged
	}
	if err != nil {
		return nil, Object{}, s3Error(err, s3Read)
	}
	if r.ContentLength == nil {
		r.Body.Close()
		return nil, Object{}, errors.New("the service does not tell the object's size (no Content-Length): whether all of it arrives could not be seen")
	}
	o := Object{URL: key, Size: *r.ContentLength, ETag: aws.ToString(r.ETag), ModTime: aws.ToTime(r.LastModified)}
	if in.Range != nil {
		_, total, ok := strings.Cut(aws.ToString(r.ContentRange), "/")
		if o.Size, err = strconv.ParseInt(total, 10, 64); !ok || err != nil {
			r.Body.Close()
			return nil, Object{}, fmt.Errorf("the service ignored the range %s", *in.Range)
		}
	}
	return r.Body, o, nil
}

func (b s3Bucket) remove(ctx context.Context, key, etag string) error {
	in := &s3.DeleteObjectInput{Bucket: &b.name, Key: &key}
	if etag != "" {
		// Deleting what is not there is a success to S3 and a change to us.
		o, err := b.stat(ctx, key)
		if errors.Is(err, ErrNotFound) || err == nil && o.ETag != etag {
			return ErrChanged
		}
		if err != nil {
			return err
		}
		in.IfMatch = &etag
	}
	var t trail
	_, err := b.DeleteObject(withTrail(ctx, &t), in)
	switch code := s3Code(err); {
	case etag != "" && (code == http.StatusNotFound || code == http.StatusPreconditionFailed || code == http.StatusConflict):
		return removed(ctx, b, key, &t)
	case code == http.StatusNotFound:
		return nil
	}
	return s3Error(err, "s3:DeleteObject")
}
