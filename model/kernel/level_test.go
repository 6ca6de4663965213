package kernel

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/advseg/advseg/model/kernel/internal/simd"
)

// The choice is made once for a process, so each case is a process of its own.
func TestForcedLevel(t *testing.T) {
	if os.Getenv("ADVSEG_TEST_LEVEL") != "" {
		reportLevel(t)
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	run := func(level string) (string, error) {
		c := exec.Command(self, "-test.run=^TestForcedLevel$", "-test.v")
		c.Env = append(os.Environ(), "ADVSEG_TEST_LEVEL=1", simd.Env+"="+level)
		out, err := c.CombinedOutput()
		return string(out), err
	}
	for _, k := range simd.All() {
		if out, err := run(k.Name); err != nil || !strings.Contains(out, "level is "+k.Name) {
			t.Errorf("%s: %v\n%s", k.Name, err, out)
		}
	}
	// One is known but not on this CPU or in this build; sse2 is not known.
	elsewhere := "neon"
	if runtime.GOARCH == "arm64" {
		elsewhere = "avx2"
	}
	for _, level := range []string{elsewhere, "sse2"} {
		if out, err := run(level); err != nil || strings.Count(out, simd.Env) < 4 || !strings.Contains(out, level) {
			t.Errorf("%s: %v, want an error from SIMD and every kernel that names it:\n%s", level, err, out)
		}
	}
}

func reportLevel(t *testing.T) {
	if name, err := SIMD(); err == nil {
		t.Logf("level is %s", name)
		return
	}
	x := make([]float32, 4)
	spec := ConvSpec{1, 1, 1, 1, 1, 0, 1}
	_, simdErr := SIMD()
	_, convErr := NewConv(spec, x, nil, ConvOptions{Act: ActNone})
	for _, err := range []error{simdErr, convErr, noPacks.ConvForward(nil, spec, x, x, x, nil, 1, 2, 2), ReLU(nil, x, x)} {
		if err == nil {
			t.Error("no error")
		}
		t.Log(err)
	}
}
