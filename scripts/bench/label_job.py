#!/usr/bin/env python3
"""Times whole labelling jobs: `advseg label` against Beam's Python SDK with
RunInference and PyTorch, on the same images and the same weights.

    label_job.py --images DIR --count 100 [--rounds 3] [--advseg bin/advseg]

Both read image files and write for each the mask, the confidence and the
pseudo-labels as PNGs. Each job is a fresh process, jobs take turns, and the
figures are medians of images a second and the processes' peaks of memory.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
THRESHOLD = 0.2


def beam_job(spec):
    """The job as a team would glue it together."""
    import io

    import apache_beam as beam
    import numpy as np
    import torch
    from apache_beam.io import fileio
    from apache_beam.ml.inference.base import RunInference
    from apache_beam.ml.inference.pytorch_inference import PytorchModelHandlerTensor
    from apache_beam.options.pipeline_options import PipelineOptions
    from PIL import Image

    sys.path.insert(0, str(HERE))
    from nets import Inference

    torch.set_num_threads(spec["threads"])

    class Labels(Inference):
        """Mask and confidence as bytes, not softmax maps: fewer bytes between steps."""

        def forward(self, x):
            maps, confidence = super().forward(x)
            return torch.stack([maps.argmax(1), (confidence[:, 0] * 255).round().long()], 1).to(torch.uint8)

    def decode(file):
        image = np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB"), dtype=np.float32)
        x = torch.from_numpy((image - [104.0, 117.0, 122.0]).astype(np.float32)).permute(2, 0, 1)
        return pathlib.Path(file.metadata.path).stem, x.contiguous()

    def write(result):
        key, prediction = result
        mask, confidence = prediction.inference.numpy()
        pseudo = np.where(confidence >= THRESHOLD * 255, mask, 255).astype(np.uint8)
        for name, pixels in (("mask", mask), ("conf", confidence), ("pseudo", pseudo)):
            Image.fromarray(pixels, mode="L").save(f"{spec['output']}/{key}.{name}.png")

    from apache_beam.ml.inference.base import KeyedModelHandler

    handler = KeyedModelHandler(PytorchModelHandlerTensor(
        state_dict_path=spec["state_dict"], model_class=Labels, model_params={"spec": spec}, device="CPU", max_batch_size=4))
    with beam.Pipeline(options=PipelineOptions(["--runner", "DirectRunner"])) as p:
        (p | fileio.MatchFiles(spec["images"] + "/*") | fileio.ReadMatches() | beam.Map(decode)
         | RunInference(handler) | beam.Map(write))


def weights(spec, folder, advseg):
    """The same random weights for both: a state dict and a bundle."""
    import torch

    sys.path.insert(0, str(HERE))
    from nets import Inference

    torch.manual_seed(1)
    model = Inference(spec).eval()
    spec["state_dict"] = str(folder / "both.pth")
    torch.save(model.state_dict(), spec["state_dict"])
    parts = {}
    for name in ("g", "d"):
        parts[name] = str(folder / f"{name}.pth")
        torch.save(getattr(model, name).state_dict(), parts[name])
    subprocess.run([advseg, "--quiet", "import-weights", "--generator", parts["g"], "--discriminator", parts["d"],
                    "--classes", str(spec["classes"]), "--out", str(folder / "bundle")], check=True, stdout=subprocess.DEVNULL)


def timed(command):
    """Seconds and peak of memory (bytes) of a process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        try:
            for line in open(f"/proc/{process.pid}/status"):
                if line.startswith("VmHWM"):
                    peak = max(peak, int(line.split()[1]) << 10)
        except OSError:
            pass
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"{command[0]} ended with exit code {process.returncode}")
    return time.perf_counter() - start, peak


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "--job":
        return beam_job(json.loads(sys.argv[2]))
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--images", required=True, help="folder of images of one size")
    p.add_argument("--count", type=int, default=100)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--arch", default="resnet18")
    p.add_argument("--classes", type=int, default=11)
    p.add_argument("--advseg", default=str(HERE.parent.parent / "bin" / "advseg"))
    p.add_argument("--json", help="write the figures there")
    o = p.parse_args()

    folder = pathlib.Path(tempfile.mkdtemp(prefix="label-job-"))
    try:
        chosen = sorted(f for f in pathlib.Path(o.images).iterdir() if f.is_file())[:o.count]
        if len(chosen) < o.count:
            raise SystemExit(f"{o.images} has {len(chosen)} files, --count is {o.count}")
        (folder / "images").mkdir()
        for f in chosen:
            shutil.copy(f, folder / "images")
        from PIL import Image

        width, height = Image.open(chosen[0]).size
        spec = {"arch": o.arch, "width": 64, "classes": o.classes, "discriminator_width": 64, "threads": o.threads,
                "image_height": height, "image_width": width, "images": str(folder / "images")}
        weights(spec, folder, o.advseg)
        results = {"advseg": [], "beam + torch": []}
        for i in range(o.rounds):
            ours = [o.advseg, "--quiet", "label", "--input", spec["images"] + "/", "--bundle", str(folder / "bundle"), "--format", "files",
                    "--threshold", str(THRESHOLD), "--output", str(folder / f"ours{i}")]
            results["advseg"].append(timed(ours))
            spec["output"] = str(folder / f"beam{i}")
            pathlib.Path(spec["output"]).mkdir()
            results["beam + torch"].append(timed([sys.executable, __file__, "--job", json.dumps(spec)]))
            for name, suffix in ((f"ours{i}", "*.mask.png"), (f"beam{i}", "*.mask.png")):
                if (n := len(list((folder / name).rglob(suffix)))) != o.count:
                    raise SystemExit(f"{name} has {n} masks, not {o.count}")
        figures = {name: {"images_a_second": o.count / statistics.median(s for s, _ in runs), "peak_bytes": statistics.median(m for _, m in runs)}
                   for name, runs in results.items()}
        for name, f in figures.items():
            print(f"{name:14}{f['images_a_second']:8.2f} images/s{f['peak_bytes'] / 2**20:8.0f} MB")
        ours, beam = figures["advseg"], figures["beam + torch"]
        print(f"advseg is {ours['images_a_second'] / beam['images_a_second']:.2f} times as fast with {ours['peak_bytes'] / beam['peak_bytes']:.2f} of the memory")
        if o.json:
            pathlib.Path(o.json).write_text(json.dumps(figures, indent=2) + "\n")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
