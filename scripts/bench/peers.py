#!/usr/bin/env python3
"""Times advseg against PyTorch, ONNX Runtime and OpenVINO on this machine.

Every contender is a process that is loaded once and then waits; rounds of runs
go round among them, so that a machine that slows down, slows down all of them.
The first round of each is not counted. Figures are medians over all runs.

advseg's time includes what the others are not asked for: normalising the bytes
of the image, argmax and the largest probability.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ADVSEG = "advseg"
INFERENCE = ("torch", "torch-channels-last", "onnxruntime", "openvino")
TRAINING = ("torch-channels-last",)
INT8 = ("openvino-int8", "openvino-int8-most")


def row(arch, classes, size, width=64, batch=1, train=False, precision="f32"):
    return {"arch": arch, "classes": classes, "size": size, "width": width, "discriminator_width": 64,
            "batch": batch, "train": train, "precision": precision}


ROWS = {
    "resnet18": row("resnet18", 11, "360x480"),
    "resnet101": row("resnet101", 21, "321x321"),
    "int8-resnet18": row("resnet18", 11, "360x480", precision="int8"),
    "int8-resnet101": row("resnet101", 21, "321x321", precision="int8"),
    "train-resnet18-w32": row("resnet18", 11, "192x192", width=32, batch=4, train=True),
    "train-resnet18-w64": row("resnet18", 11, "256x256", batch=2, train=True),
    "train-resnet101": row("resnet101", 21, "321x321", train=True),
}


class Contender:
    """A process that does runs when told to."""

    def __init__(self, name, command, env, go):
        self.name, self.go = name, go
        self.seconds, self.peak = [], 0
        self.process = subprocess.Popen(command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def round(self, count=True):
        try:
            self.process.stdin.write(self.go + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise SystemExit(f"{self.name} ended with exit code {self.process.wait()}; what it said is above")
        answer = json.loads(answer)
        self.peak = answer["peak_rss_bytes"]
        if count:
            self.seconds += answer["seconds"]
        return answer

    def close(self):
        try:
            self.process.stdin.close()
            self.process.wait(timeout=30)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()


def bench_command(args, r, *more):
    cmd = [args.advseg, "bench", "--json", "--quiet", "--precision", r["precision"], "--threads", str(args.threads)]
    for key in ("arch", "classes", "size", "width", "discriminator_width", "batch"):
        cmd += ["--" + key.replace("_", "-"), str(r[key])]
    return cmd + (["--train"] if r["train"] else []) + list(more)


def environments(args):
    ours = dict(os.environ)
    if args.simd:
        ours["ADVSEG_SIMD"] = args.simd
    threads = str(args.threads)
    theirs = dict(os.environ, OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads, ONEDNN_DEFAULT_FPMATH_MODE="STRICT")
    return ours, theirs


def peers(r, only):
    if r["precision"] == "int8":
        return [n for n in INT8 if not only or n in only]
    if r["train"]:
        return [n for n in only or TRAINING if n.startswith("torch")]
    return [n for n in INFERENCE if not only or n in only]


def measure(name, r, args, folder):
    ours, theirs = environments(args)
    say(f"{name}: checking that the networks are the same")
    probe = bench_command(args, r, "--runs", "1", *([] if r["train"] else ["--layers"]))
    report = subprocess.run(probe, env=ours, stdout=subprocess.PIPE, text=True, check=True).stdout
    nets = [sys.executable, str(HERE / "nets.py")]
    subprocess.run(nets, input=report, text=True, check=True)
    report = json.loads(report)

    names = peers(r, args.only)
    h, w = (int(v) for v in report["size"].split("x"))
    spec = r | {"image_height": h, "image_width": w, "threads": args.threads, "onnx": os.path.join(folder, name + ".onnx")}
    if any(n.startswith(("onnxruntime", "openvino")) for n in names):
        say(f"{name}: exporting ONNX")
        subprocess.run([*nets, "--export", spec["onnx"]], input=json.dumps(report), text=True, check=True, env=theirs)

    contenders = []
    try:
        contenders.append(Contender(ADVSEG, bench_command(args, r, "--interactive", "--runs", str(args.runs)), ours, ""))
        for n in names:
            command = [sys.executable, str(HERE / "contenders.py"), n, json.dumps(spec)]
            contenders.append(Contender(n, command, theirs, str(args.runs)))
        for c in contenders:
            say(f"{name}: warming up {c.name}")
            c.round(count=False)
        for i in range(args.rounds):
            say(f"{name}: round {i + 1} of {args.rounds}")
            for c in contenders[i % len(contenders):] + contenders[:i % len(contenders)]:
                time.sleep(args.pause)  # until the threads of the one before sleep
                c.round()
    finally:
        for c in contenders:
            c.close()
    return summary(name, r, report, contenders)


def summary(name, r, report, contenders):
    base = statistics.median(contenders[0].seconds)
    results = []
    for c in contenders:
        median = statistics.median(c.seconds)
        results.append({
            "name": c.name, "seconds_median": median, "seconds_min": min(c.seconds), "runs": len(c.seconds),
            "gflops": report["flops"] / median / 1e9, "ratio": median / base, "peak_rss_bytes": c.peak,
        })
    return {"row": name, **r, "threads": report["threads"], "simd": report["simd"], "flops": report["flops"], "results": results}


def table(rows):
    for r in rows:
        batch = f"{r['batch']}+{r['batch']}" if r["train"] else r["batch"]
        what = "training, " if r["train"] else ""
        print(f"\n{r['row']}: {what}{r['arch']} width {r['width']}, {r['classes']} classes, {r['size']}, batch {batch}, "
              f"{r['precision']}, {r['threads']} threads, {r['flops'] / 1e9:.1f} GFLOP")
        unit = "s/iteration" if r["train"] else "s/image"
        print(f"{'':20} {unit:>11} {'best':>8} {'GFLOP/s':>8} {'x advseg':>9} {'peak MB':>8}")
        for c in r["results"]:
            name = f"{c['name']} ({r['simd']})" if c["name"] == ADVSEG else c["name"]
            print(f"{name:20} {c['seconds_median']:11.4f} {c['seconds_min']:8.4f} {c['gflops']:8.1f} "
                  f"{c['ratio']:9.2f} {c['peak_rss_bytes'] / 1e6:8.0f}")


def machine():
    cpu = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as f:
            cpu = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), cpu)
    except OSError:
        pass
    versions = {p: importlib.metadata.version(p) for p in ("torch", "onnx", "onnxruntime", "openvino", "nncf", "numpy")}
    return {"cpu": cpu, "cores": os.cpu_count(), "system": platform.platform(), "versions": versions}


def say(text):
    print(text, file=sys.stderr, flush=True)


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--advseg", default="bin/advseg", help="the binary (default bin/advseg)")
    p.add_argument("--row", action="append", choices=ROWS, help="a row of the table; repeat for more (default: all)")
    p.add_argument("--arch", choices=("resnet18", "resnet50", "resnet101"), help="a row of your own, with the flags below")
    p.add_argument("--classes", type=int, default=21)
    p.add_argument("--size", default="321x321", help="HxW")
    p.add_argument("--width", type=int, default=64)
    p.add_argument("--batch", type=int, default=1)
    p.add_argument("--train", action="store_true", help="time iterations of training")
    p.add_argument("--only", action="append", choices=INFERENCE + INT8,
                   help="a peer; repeat for more (default: all, for training PyTorch with channels_last)")
    p.add_argument("--threads", type=int, default=os.cpu_count(), help="of each contender (default: all cores)")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--runs", type=int, default=3, help="in each round")
    p.add_argument("--pause", type=float, default=0.3, help="seconds between contenders")
    p.add_argument("--precision", default="f32", choices=("f32", "int8"), help="of all contenders")
    p.add_argument("--simd", help="instruction set of advseg (ADVSEG_SIMD): amx, avx512, avx2, ...")
    p.add_argument("--json", metavar="FILE", help="write the results as JSON too; - for standard output instead of the table")
    args = p.parse_args()
    if args.rounds < 1 or args.runs < 1:
        p.error("--rounds and --runs must be at least 1")
    if args.train and args.precision == "int8":
        p.error("--train is in f32")
    return args


def main():
    args = arguments()
    rows = {n: ROWS[n] for n in args.row or ([] if args.arch else ROWS)}
    if args.arch:
        rows["custom"] = row(args.arch, args.classes, args.size, args.width, args.batch, args.train, args.precision)
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = [measure(name, r, args, folder) for name, r in rows.items()]
        except subprocess.CalledProcessError as e:
            raise SystemExit(f"{e.cmd[0]} {e.cmd[1]} failed with exit code {e.returncode}; what it said is above")
    result = {"machine": machine(), "rows": done}
    if args.json == "-":
        json.dump(result, sys.stdout, indent=2)
        print()
        return
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(result, indent=2) + "\n")
    m = result["machine"]
    print(f"{m['cpu']}, {m['cores']} cores; " + ", ".join(f"{k} {v}" for k, v in m["versions"].items()))
    table(done)


if __name__ == "__main__":
    main()
