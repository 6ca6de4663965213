"""One contender of peers.py, in a process of its own.

    contenders.py KIND SPEC

For each line "N" on standard input it does N timed runs and prints one line of
JSON: the seconds of each, by image or iteration, and the peak of memory. All
arithmetic but that of int8 is float32: neither bfloat16 nor TF32 stands in for it.
"""

import json
import os
import resource
import sys
import time


def torch_runner(spec, memory_format):
    import torch

    exact(torch, spec)
    fmt = getattr(torch, memory_format)
    torch.manual_seed(1)
    if spec["train"]:
        from nets import Training

        return Training(spec, fmt)
    from nets import Inference

    model = Inference(spec).eval().to(memory_format=fmt)
    x = torch.randn(spec["batch"], 3, spec["image_height"], spec["image_width"]).contiguous(memory_format=fmt)

    def run():
        with torch.inference_mode():
            return model(x)

    return run


def exact(torch, spec):
    torch.set_num_threads(spec["threads"])
    torch.set_num_interop_threads(1)
    torch.set_float32_matmul_precision("highest")
    for ops in (torch.backends.mkldnn.conv, torch.backends.mkldnn.matmul, torch.backends.mkldnn.rnn):
        ops.fp32_precision = "ieee"


def onnxruntime_runner(spec):
    import onnxruntime as ort

    o = ort.SessionOptions()
    o.intra_op_num_threads, o.inter_op_num_threads = spec["threads"], 1
    o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = ort.InferenceSession(spec["onnx"], o, providers=["CPUExecutionProvider"])
    x = images(spec)
    return lambda: session.run(None, {"images": x})


def openvino_runner(spec, quantized=None):
    """In float32; or quantized to int8: "all" layers, or "most": those that advseg computes in int8."""
    import openvino as ov

    core = ov.Core()
    model = core.read_model(spec["onnx"])
    if quantized:
        model = quantize(spec, model, quantized)
    # With the default, CPUs that have AMX or AVX512-BF16 would compute in bfloat16.
    compiled = core.compile_model(model, "CPU", {
        "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": spec["threads"],
        "NUM_STREAMS": "1", "PERFORMANCE_HINT": "LATENCY",
    })
    precision = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if precision != "f32":
        raise RuntimeError(f"OpenVINO computes in {precision}, not f32")
    request, x = compiled.create_infer_request(), images(spec)
    return lambda: request.infer({"images": x}, share_inputs=True, share_outputs=True)


def quantize(spec, model, which):
    """NNCF's post-training quantization with its usual settings."""
    import nncf

    ignored = []
    if which == "most":
        convs = [op.get_friendly_name() for op in model.get_ordered_ops() if op.get_type_name() == "Convolution"]
        kept = [n for n in convs if n.startswith("/d/") or "/layer5/" in n]
        if len(kept) != 5 + 4:
            raise RuntimeError(f"D and the head have 9 convolutions, not {kept}")
        ignored = [convs[0], *kept]
    return nncf.quantize(model, nncf.Dataset([{"images": images(spec)}]), subset_size=1,
                         ignored_scope=nncf.IgnoredScope(names=ignored))


def images(spec):
    import numpy as np

    shape = (spec["batch"], 3, spec["image_height"], spec["image_width"])
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


RUNNERS = {
    "torch": lambda spec: torch_runner(spec, "contiguous_format"),
    "torch-channels-last": lambda spec: torch_runner(spec, "channels_last"),
    "onnxruntime": onnxruntime_runner,
    "openvino": openvino_runner,
    "openvino-int8": lambda spec: openvino_runner(spec, "all"),
    "openvino-int8-most": lambda spec: openvino_runner(spec, "most"),
}


def peak_rss():
    try:
        with open("/proc/self/status") as f:
            for line in f:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) << 10
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def main():
    kind, spec = sys.argv[1], json.loads(sys.argv[2])
    # What libraries print goes to standard error: standard output is for results.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    run = RUNNERS[kind](spec)
    each = 1 if spec["train"] else spec["batch"]
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            run()
            seconds.append((time.perf_counter() - start) / each)
        print(json.dumps({"seconds": seconds, "peak_rss_bytes": peak_rss()}), file=out, flush=True)


if __name__ == "__main__":
    main()
