package blobtest

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"time"
)

// Fault is something that can happen to a request.
type Fault string

// The faults.
const (
	Unavailable Fault = "unavailable" // 503, nothing was done
	LostReply   Fault = "lost reply"  // it was done, but the connection is reset instead of an answer
	LateError   Fault = "late error"  // it was done, but the answer is 500
	Reset       Fault = "reset"       // the connection is reset in the middle of the answer's body
	Stall       Fault = "stall"       // the answer's body stops in its middle
	Slow        Fault = "slow"        // the answer's body comes in small pieces
)

// AllFaults are all of them.
var AllFaults = []Fault{Unavailable, LostReply, LateError, Reset, Stall, Slow}

// Faults is a network and a service that fail now and then. What happens to a
// request depends on the seed, on what is asked, and on how often it has been
// asked before, and not on what else happens at the time: a seed repeats. The
// same request meets with no more than inARow faults one after the other.
type Faults struct {
	Seed  uint64
	Share float64 // of the requests that meet with a fault, 0 to 1
	Kinds []Fault

	mu     sync.Mutex
	asked  map[string]int
	row    map[string]int
	counts map[Fault]int
}

const inARow = 4

// Counts tells how often what has happened.
func (f *Faults) Counts() map[Fault]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[Fault]int{}
	for k, n := range f.counts {
		out[k] = n
	}
	return out
}

// In puts the faults in front of a service.
func (f *Faults) In(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fault, rng := f.draw(r)
		switch fault {
		case "":
			next.ServeHTTP(w, r)
		case Unavailable:
			_, _ = io.Copy(io.Discard, r.Body)
			http.Error(w, "try again", http.StatusServiceUnavailable)
		case LostReply:
			next.ServeHTTP(httptest.NewRecorder(), r)
			reset(w)
		case LateError:
			next.ServeHTTP(httptest.NewRecorder(), r)
			http.Error(w, "something went wrong", http.StatusInternalServerError)
		case Reset, Stall, Slow:
			answer := httptest.NewRecorder()
			next.ServeHTTP(answer, r)
			spoil(w, r, answer, fault, rng)
		}
	})
}

func (f *Faults) draw(r *http.Request) (Fault, *rand.Rand) {
	what := r.Method + " " + r.URL.EscapedPath() + " " + r.Header.Get("Range") + " " + r.URL.Query().Get("prefix") + " " + r.URL.Query().Get("name")
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asked == nil {
		f.asked, f.row, f.counts = map[string]int{}, map[string]int{}, map[Fault]int{}
	}
	f.asked[what]++
	h := fnv.New64a()
	fmt.Fprintln(h, what, f.asked[what])
	rng := rand.New(rand.NewPCG(f.Seed, h.Sum64()))
	if len(f.Kinds) == 0 || rng.Float64() >= f.Share || f.row[what] == inARow {
		f.row[what] = 0
		return "", rng
	}
	f.row[what]++
	kind := f.Kinds[rng.IntN(len(f.Kinds))]
	f.counts[kind]++
	return kind, rng
}

// spoil sends an answer's headers and part of its body, and then what the fault
// stands for.
func spoil(w http.ResponseWriter, r *http.Request, answer *httptest.ResponseRecorder, fault Fault, rng *rand.Rand) {
	for k, v := range answer.Header() {
		w.Header()[k] = v
	}
	body := answer.Body.Bytes()
	if r.Method != http.MethodHead && answer.Code != http.StatusNoContent && answer.Code != http.StatusNotModified {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(answer.Code)
	if len(body) == 0 {
		return
	}
	if fault == Slow {
		drip(w, r, body)
		return
	}
	_, _ = w.Write(body[:rng.IntN(len(body))])
	_ = http.NewResponseController(w).Flush()
	if fault == Stall {
		_, _ = io.Copy(io.Discard, r.Body) // only then does the server see that the client has left
		<-r.Context().Done()
	}
	reset(w)
}

// drip takes a tenth of a second for ten pieces.
func drip(w http.ResponseWriter, r *http.Request, body []byte) {
	piece := (len(body) + 9) / 10
	for b := bytes.NewReader(body); b.Len() > 0; {
		if _, err := io.CopyN(w, b, int64(min(piece, b.Len()))); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// reset closes a connection so that the peer gets an RST, or at least what is
// not the end of an answer.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	conn.Close()
}
