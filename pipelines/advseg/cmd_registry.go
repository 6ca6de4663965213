package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/advseg/advseg/io/registry"
	"github.com/advseg/advseg/pipelines"
)

// RegistryOptions is what all these commands need. Its name is exported because
// the YAML library sets nothing in an embedded struct whose name is not.
type RegistryOptions struct {
	Registry string `yaml:"registry" help:"URL of the registry"`
}

func (o *RegistryOptions) Validate() error {
	if o.Registry == "" {
		return errors.New("--registry is needed")
	}
	return nil
}

type publishOptions struct {
	RegistryOptions `yaml:",inline"`
	Bundle          string `yaml:"bundle" help:"the bundle to copy into the registry"`
	Promote         bool   `yaml:"promote" help:"make it champion at once"`
	Reason          string `yaml:"reason" help:"of the promotion, kept in the history"`
}

func (o *publishOptions) Validate() error {
	switch {
	case o.Bundle == "":
		return errors.New("--bundle is needed")
	case o.Reason != "" && !o.Promote:
		return errors.New("--reason is kept for a change of champion only: say --promote too, or leave it out")
	}
	return o.RegistryOptions.Validate()
}

type promoteOptions struct {
	RegistryOptions `yaml:",inline"`
	Version         string `yaml:"version" help:"number or digest of the version"`
	Reason          string `yaml:"reason" help:"kept in the history"`
}

func (o *promoteOptions) Validate() error {
	if o.Version == "" {
		return errors.New("--version is needed: advseg registry list names them")
	}
	return o.RegistryOptions.Validate()
}

type rollbackOptions struct {
	RegistryOptions `yaml:",inline"`
	Reason          string `yaml:"reason" help:"kept in the history"`
}

type lockOptions struct {
	RegistryOptions `yaml:",inline"`
	HeldHere        bool `yaml:"held_here" help:"fail unless a process of this host holds it, for probes of a night at work"`
}

func (a *app) registryCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "registry",
		Short:   "List, publish, promote and roll back models, and see whose night it is",
		Example: "  advseg registry publish --registry models/registry --bundle models/first --promote\n  advseg registry list --registry models/registry",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("there is no registry command %q", args[0])
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error {
			return usagef("name one of: list, publish, promote, rollback, history, lock, unlock")
		},
	}
	cmd.AddCommand(
		registrySub(a, "list", "List the versions and name the champion", "  advseg registry list --registry models/registry", &RegistryOptions{}, a.registryList),
		registrySub(a, "publish", "Copy a bundle into the registry", "  advseg registry publish --registry models/registry --bundle models/first --promote", &publishOptions{}, a.registryPublish),
		registrySub(a, "promote", "Make a version champion", "  advseg registry promote --registry models/registry --version 3 --reason 'checked by hand'", &promoteOptions{}, a.registryPromote),
		registrySub(a, "rollback", "Make the champion before this one champion again", "  advseg registry rollback --registry models/registry --reason 'too many false cars'", &rollbackOptions{}, a.registryRollback),
		registrySub(a, "history", "List the changes of champion and their reasons, the last one first", "  advseg registry history --registry models/registry", &RegistryOptions{}, a.registryHistory),
		registrySub(a, "lock", "Tell which process holds the lock of the nights", "  advseg registry lock --registry models/registry", &lockOptions{}, a.registryLock),
		registrySub(a, "unlock", "Remove the lock of a night that is known to be dead", "  advseg registry unlock --registry models/registry", &RegistryOptions{}, a.registryUnlock),
	)
	return cmd
}

func registrySub[O validator](a *app, use, short, example string, o O, run func(cmd *cobra.Command, o O, asJSON bool) error) *cobra.Command {
	asJSON := false
	cmd := a.command(use, short, example, o, func(cmd *cobra.Command) error { return run(cmd, o, asJSON) })
	jsonFlag(cmd, &asJSON)
	return cmd
}

func (a *app) registryUnlock(cmd *cobra.Command, o *RegistryOptions, asJSON bool) error {
	broken, err := pipelines.BreakNightLock(cmd.Context(), o.Registry)
	if err != nil {
		return err
	}
	return a.report(asJSON, broken, func(w io.Writer) {
		if broken.Holder == "" {
			fmt.Fprintln(w, broken)
			return
		}
		fmt.Fprintln(w, "removed the lock of", broken.Holder)
	})
}

func (a *app) registryLock(cmd *cobra.Command, o *lockOptions, asJSON bool) error {
	held, err := pipelines.NightLock(cmd.Context(), o.Registry)
	if err != nil {
		return err
	}
	if o.HeldHere && !held.Here {
		return fmt.Errorf("no process of this host holds the lock of %s: %s", o.Registry, held)
	}
	return a.report(asJSON, held, func(w io.Writer) { fmt.Fprintln(w, held) })
}

func (a *app) registryList(cmd *cobra.Command, o *RegistryOptions, asJSON bool) error {
	reg := registry.Open(o.Registry)
	versions, err := reg.Versions(cmd.Context())
	if err != nil {
		return err
	}
	champion, err := reg.Champion(cmd.Context())
	if err != nil && !errors.Is(err, registry.ErrNoChampion) {
		return err
	}
	v := struct {
		Champion string             `json:"champion"`
		Versions []registry.Version `json:"versions"`
	}{champion.Digest, versions}
	return a.report(asJSON, v, func(w io.Writer) {
		for _, v := range versions {
			mark := " "
			if v.Digest == champion.Digest {
				mark = "*"
			}
			fmt.Fprintf(w, "%s %6d  %.12s  %s  %s", mark, v.Number, v.Digest, stamp(v.Created), v.URL)
			if of := pipelines.BundleOf(v); of != "" {
				fmt.Fprintf(w, "  bundle %.12s", of)
			}
			fmt.Fprintln(w)
		}
		switch {
		case len(versions) == 0:
			fmt.Fprintf(w, "there is no version in %s\n", o.Registry)
		case champion.Digest == "":
			fmt.Fprintln(w, "there is no champion")
		}
	})
}

func (a *app) registryPublish(cmd *cobra.Command, o *publishOptions, asJSON bool) error {
	v, err := pipelines.Publish(cmd.Context(), o.Registry, o.Bundle, o.Promote, o.Reason)
	if err != nil {
		return err
	}
	return a.report(asJSON, v, func(w io.Writer) {
		fmt.Fprintf(w, "version %d, digest %.12s, %s\n", v.Number, v.Digest, v.URL)
	})
}

func (a *app) registryPromote(cmd *cobra.Command, o *promoteOptions, asJSON bool) error {
	reg := registry.Open(o.Registry)
	versions, err := reg.Versions(cmd.Context())
	if err != nil {
		return err
	}
	for _, v := range versions {
		if o.Version != strconv.Itoa(v.Number) && (len(o.Version) < 6 || len(o.Version) > len(v.Digest) || v.Digest[:len(o.Version)] != o.Version) {
			continue
		}
		if err := reg.Promote(cmd.Context(), v, o.Reason); err != nil {
			return err
		}
		return a.report(asJSON, v, func(w io.Writer) { fmt.Fprintf(w, "version %d is champion\n", v.Number) })
	}
	return usagef("--version %q: the registry has no such version", o.Version)
}

func (a *app) registryRollback(cmd *cobra.Command, o *rollbackOptions, asJSON bool) error {
	v, err := registry.Open(o.Registry).Rollback(cmd.Context(), o.Reason)
	if err != nil {
		return err
	}
	return a.report(asJSON, v, func(w io.Writer) { fmt.Fprintf(w, "version %d is champion again\n", v.Number) })
}

func (a *app) registryHistory(cmd *cobra.Command, o *RegistryOptions, asJSON bool) error {
	events, err := registry.Open(o.Registry).History(cmd.Context())
	if err != nil {
		return err
	}
	events = append([]registry.Event{}, events...) // none are [] in JSON
	slices.Reverse(events)
	return a.report(asJSON, events, func(w io.Writer) {
		for _, e := range events {
			change := "promoted"
			if e.Rollback {
				change = "back to"
			}
			line := fmt.Sprintf("%s  %s %6d  %.12s  %s", stamp(e.Time), change, e.Number, e.Digest, e.Reason)
			fmt.Fprintln(w, strings.TrimRight(line, " "))
		}
		if len(events) == 0 {
			fmt.Fprintf(w, "%s never had a champion\n", o.Registry)
		}
	})
}
