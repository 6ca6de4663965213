package pipelines

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/options/jobopts"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/util/grpcx"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// answersWithin is how long a job server may take to accept a connection or to answer.
const answersWithin = 15 * time.Second

// JobServer is the HOST:PORT of Beam's job server, which hands jobs to Flink.
type JobServer string

// Check finds out whether anybody listens there: Beam itself would try on for minutes.
func (s JobServer) Check(ctx context.Context) error {
	if s == "" {
		return errors.New("--endpoint: where does Beam's job server listen? For example jobmanager:8099")
	}
	if _, _, err := net.SplitHostPort(string(s)); err != nil {
		return fmt.Errorf("--endpoint %q is not HOST:PORT: %w", s, err)
	}
	ctx, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", string(s))
	if err != nil {
		return fmt.Errorf("--endpoint %s: no job server answers there: %w", s, err)
	}
	return conn.Close()
}

// ask calls the job server.
func (s JobServer) ask(ctx context.Context, question func(context.Context, jobpb.JobServiceClient) error) error {
	ctx, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	conn, err := grpcx.Dial(ctx, string(s), answersWithin)
	if err != nil {
		return fmt.Errorf("job server %s: %w", s, err)
	}
	defer conn.Close()
	if err := question(ctx, jobpb.NewJobServiceClient(conn)); err != nil {
		return fmt.Errorf("job server %s: %w", s, err)
	}
	return nil
}

// serverJob is a job as its job server knows it.
type serverJob struct {
	id   string
	name string // the server's, made from ours
	// master is the address of the Flink cluster's REST API, as the job server reaches
	// it; no address when Flink is a part of the job server.
	master string
	ended  bool
}

// jobs returns those that were sent under a name.
func (s JobServer) jobs(ctx context.Context, name string) (jobs []serverJob, err error) {
	ended := []jobpb.JobState_Enum{jobpb.JobState_DONE, jobpb.JobState_FAILED, jobpb.JobState_CANCELLED}
	err = s.ask(ctx, func(ctx context.Context, client jobpb.JobServiceClient) error {
		all, err := client.GetJobs(ctx, &jobpb.GetJobsRequest{})
		for _, job := range all.GetJobInfo() {
			options := job.GetPipelineOptions().GetFields()
			// Flink's makes another name of ours.
			if name == job.GetJobName() || name == options["beam:option:app_name:v1"].GetStringValue() {
				master := options["beam:option:flink_master:v1"].GetStringValue()
				jobs = append(jobs, serverJob{job.GetJobId(), job.GetJobName(), master, slices.Contains(ended, job.GetState())})
			}
		}
		return err
	})
	return jobs, err
}

// cancel ends a job. The job server only forgets one that it has handed to a cluster, so
// the cluster is asked too.
func (s JobServer) cancel(ctx context.Context, job serverJob) error {
	err := s.ask(ctx, func(ctx context.Context, client jobpb.JobServiceClient) error {
		_, err := client.Cancel(ctx, &jobpb.CancelJobRequest{JobId: job.id})
		return err
	})
	if url, ok := job.flink(); ok {
		if failed := cancelInFlink(ctx, url, job.name); failed != nil {
			err = errors.Join(err, fmt.Errorf("cancel it in Flink, at %s: %w", url, failed))
		}
	}
	return err
}

// flink is where the cluster's REST API listens, if there is a cluster.
func (j serverJob) flink() (url string, ok bool) {
	_, _, err := net.SplitHostPort(j.master)
	return "http://" + j.master, err == nil
}

// cancelInFlink cancels the jobs of a name by the REST API of a cluster.
func cancelInFlink(ctx context.Context, url, name string) error {
	var all struct {
		Jobs []struct{ JID, Name, State string }
	}
	if err := rest(ctx, http.MethodGet, url+"/jobs/overview", &all); err != nil {
		return err
	}
	for _, job := range all.Jobs {
		if job.Name == name && !slices.Contains([]string{"FINISHED", "CANCELED", "FAILED"}, job.State) {
			if err := rest(ctx, http.MethodPatch, url+"/jobs/"+job.JID+"?mode=cancel", nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// rest calls Flink's REST API and decodes its answer, if that is wanted.
func rest(ctx context.Context, method, url string, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s", method, url, response.Status)
	}
	if answer == nil {
		return nil
	}
	return json.NewDecoder(response.Body).Decode(answer)
}

// submission is a job that is being handed to a job server.
type submission struct {
	server JobServer
	name   string
	others []string // ids of jobs of the same name that were there before
}

// submit is beam.Run that cancels the job when ctx ends.
func submit(ctx context.Context, r Runner, p *beam.Pipeline) (beam.PipelineResult, error) {
	s := submission{server: JobServer(*jobopts.Endpoint), name: *jobopts.JobName}
	before, err := s.server.jobs(ctx, s.name)
	if err != nil && status.Code(err) != codes.Unimplemented { // then nobody can ask for the job later
		return nil, err
	}
	for _, job := range before {
		s.others = append(s.others, job.id)
	}
	result, err := beam.Run(ctx, r.name(), p)
	switch {
	case ctx.Err() != nil:
		return nil, s.withdraw(ctx)
	case err != nil:
		return nil, s.explain(ctx, err)
	case !r.detached():
		return result, nil
	}
	jobs, err := s.jobs(ctx)
	if err != nil || len(jobs) == 0 {
		return result, nil // it is submitted all the same
	}
	return submitted{result, jobs[0].id}, nil
}

// submitted knows the id of its job, which Beam's result of a job that is not waited for
// does not.
type submitted struct {
	beam.PipelineResult
	id string
}

func (s submitted) JobID() string { return s.id }

// jobs are what the job server knows of it: none when it was not submitted.
func (s submission) jobs(ctx context.Context) ([]serverJob, error) {
	all, err := s.server.jobs(ctx, s.name)
	return slices.DeleteFunc(all, func(job serverJob) bool { return slices.Contains(s.others, job.id) }), err
}

// withdraw cancels the job after ctx has ended, and says what has become of it.
func (s submission) withdraw(ctx context.Context) error {
	cause := context.Cause(ctx)
	ctx = context.WithoutCancel(ctx)
	jobs, err := s.jobs(ctx)
	for _, job := range jobs {
		if !job.ended {
			err = errors.Join(err, s.server.cancel(ctx, job))
		}
	}
	switch {
	case err != nil:
		return fmt.Errorf("%w, but job %s may go on: %w", cause, s.name, err)
	case len(jobs) == 0:
		return fmt.Errorf("%w before the job was submitted", cause)
	default:
		return fmt.Errorf("%w: job %s was cancelled", cause, jobs[0].id)
	}
}

// explain adds to the error of a job what may have led to it.
func (s submission) explain(ctx context.Context, err error) error {
	if lost := s.server.Check(ctx); lost != nil {
		return fmt.Errorf("%w; the job server is lost, and the job may go on without it: start the same command again when it is back, what is done is not done again (%w)", lost, err)
	}
	if strings.Contains(err.Error(), "DoFn") {
		return err // a worker's own
	}
	// A job server made for another version of Flink fails with whatever Java finds.
	jobs, _ := s.jobs(ctx)
	for _, job := range jobs {
		var cluster struct {
			Version string `json:"flink-version"`
		}
		url, ok := job.flink()
		if ok && rest(ctx, http.MethodGet, url+"/overview", &cluster) == nil {
			return fmt.Errorf("%w (the cluster at %s is Flink %s: is the job server made for that version?)", err, url, cluster.Version)
		}
	}
	return err
}
