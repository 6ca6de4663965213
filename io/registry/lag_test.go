package registry

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/blob/blobtest"
)

// TestListingBehind: storage whose listings show nothing of what was written in
// the last hour. Versions are whole and numbered all the same.
func TestListingBehind(t *testing.T) {
	fake, err := blobtest.NewGS("")
	if err != nil {
		t.Fatal(err)
	}
	lag := &blobtest.Lag{For: time.Hour}
	server := httptest.NewServer(lag.In(fake))
	t.Cleanup(func() {
		if err := blob.CloseClients(); err != nil {
			t.Error(err)
		}
		server.Close()
		fake.Close()
	})
	if err := fake.CreateBucket("bucket"); err != nil {
		t.Fatal(err)
	}
	t.Setenv("STORAGE_EMULATOR_HOST", server.URL)
	ctx, base := t.Context(), "gs://bucket"
	r := at(base, newClock())
	must := []string{"model.json", "generator.safetensors", "deep/er.bin"}
	for i, content := range []string{"one", "two", "one"} {
		v, err := r.Publish(ctx, bundle(t, base, content), nil, must...)
		if err != nil {
			t.Fatal(err)
		}
		if want := i%2 + 1; v.Number != want {
			t.Errorf("%s has the number %d, want %d", content, v.Number, want)
		}
		for _, name := range must {
			if _, err := blob.Stat(ctx, blob.Join(v.URL, name)); err != nil {
				t.Errorf("version %d: %v", v.Number, err)
			}
		}
	}
	if lag.Hidden() == 0 {
		t.Error("the listings were up to date")
	}
	if _, err := r.Publish(ctx, bundle(t, base, "three"), nil, "missing.bin"); err == nil {
		t.Error("a bundle without a file that must be there is published")
	}
}
