package shard

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/advseg/advseg/io/blob"
)

// catalogue is a storage service that lists a bucket of n objects with made-up
// names, 1000 a page, and can do nothing else.
type catalogue struct {
	n     int
	ext   string
	pages atomic.Int64
}

func (c *catalogue) name(i int) string {
	return fmt.Sprintf("images/2026-%02d/camera-%02d/frame-%07d.%s", 1+i*12/c.n, i*240/c.n%20, i, c.ext)
}

func (c *catalogue) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.pages.Add(1)
	q := r.URL.Query()
	first, _ := strconv.Atoi(q.Get("pageToken") + q.Get("continuation-token"))
	last := min(first+1000, c.n)
	if strings.HasPrefix(r.URL.Path, "/storage/") {
		type item struct{ Name, Size, Generation, Updated string }
		page := struct {
			Items         []item `json:"items"`
			NextPageToken string `json:"nextPageToken,omitempty"`
		}{}
		for i := first; i < last; i++ {
			page.Items = append(page.Items, item{c.name(i), "150000", strconv.Itoa(1790000000000000 + i), "2026-11-26T12:00:00Z"})
		}
		if last < c.n {
			page.NextPageToken = strconv.Itoa(last)
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(page)
		return
	}
	w.Header().Set("Content-Type", "application/xml")
	fmt.Fprintf(w, "<ListBucketResult><IsTruncated>%v</IsTruncated><NextContinuationToken>%d</NextContinuationToken>", last < c.n, last)
	for i := first; i < last; i++ {
		fmt.Fprintf(w, `<Contents><Key>%s</Key><LastModified>2026-11-26T12:00:00Z</LastModified><ETag>"%032x"</ETag><Size>150000</Size></Contents>`, c.name(i), i)
	}
	fmt.Fprint(w, "</ListBucketResult>")
}

// planCatalogue plans a bucket of n objects and returns the plan and the bytes
// of heap that it takes.
func planCatalogue(tb testing.TB, scheme, ext string, n int) ([]Ref, uint64) {
	tb.Helper()
	c := &catalogue{n: n, ext: ext}
	server := httptest.NewServer(c)
	defer server.Close()
	for k, v := range map[string]string{
		"STORAGE_EMULATOR_HOST": server.URL, "AWS_ENDPOINT_URL": server.URL, "AWS_REGION": "us-east-1",
		"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_CONFIG_FILE": os.DevNull,
	} {
		tb.Setenv(k, v)
	}
	defer func() {
		if err := blob.CloseClients(); err != nil {
			tb.Error(err)
		}
	}()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	refs, err := Plan(tb.Context(), []string{scheme + "://bucket/images/**"}, PlanOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if want := int64((n + 999) / 1000); c.pages.Load() != want {
		tb.Errorf("%d requests for %d pages", c.pages.Load(), want)
	}
	return refs, after.HeapAlloc - min(after.HeapAlloc, before.HeapAlloc)
}

// TestPlanOfABucket holds what a plan takes for each object to a bound, so that
// a million fit where the network does.
func TestPlanOfABucket(t *testing.T) {
	const n = 30_000
	for _, scheme := range []string{"gs", "s3"} {
		for ext, c := range map[string]struct {
			refs  int
			bytes uint64
		}{
			"jpg": {(n + 63) / 64, 200},
			"tar": {n, 400},
		} {
			refs, heap := planCatalogue(t, scheme, ext, n)
			if len(refs) != c.refs {
				t.Errorf("%s %s: %d refs, want %d", scheme, ext, len(refs), c.refs)
			}
			if heap/n > c.bytes {
				t.Errorf("%s %s: %d bytes an object, want at most %d", scheme, ext, heap/n, c.bytes)
			}
			runtime.KeepAlive(refs)
		}
	}
}

// BenchmarkPlanMillion lists and plans a million objects, with the service in the
// same process.
func BenchmarkPlanMillion(b *testing.B) {
	for _, scheme := range []string{"gs", "s3"} {
		for _, ext := range []string{"jpg", "tar"} {
			b.Run(scheme+"/"+ext, func(b *testing.B) {
				for b.Loop() {
					start := time.Now()
					refs, heap := planCatalogue(b, scheme, ext, 1_000_000)
					b.ReportMetric(time.Since(start).Seconds(), "s")
					b.ReportMetric(float64(heap)/1e6, "MB-plan")
					b.ReportMetric(float64(len(refs)), "refs")
					b.ReportMetric(peakMB(), "MB-peak-RSS")
				}
			})
		}
	}
}

// peakMB is the largest resident size of the process so far; 0 where the system
// does not tell.
func peakMB() float64 {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kb float64
		if _, err := fmt.Sscanf(lines.Text(), "VmHWM: %f kB", &kb); err == nil {
			return kb / 1000
		}
	}
	return 0
}
