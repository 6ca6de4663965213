"""Makes the .pth files of this folder. Run it here with PyTorch installed:

    python make.py

The tests hold the values against the formulas below.
"""

import collections
import pickle
import types

import torch

OrderedDict = collections.OrderedDict


def counted(*shape, dtype=torch.float32):
    """Values 0, 0.5, 1, ... (exact in every type), negative at odd places."""
    n = torch.Size(shape).numel()
    v = torch.arange(n, dtype=torch.float32) / 2
    v[1::2] *= -1
    return v.reshape(shape).to(dtype)


def tensors():
    """Each type, each way in which a tensor can lie in a storage."""
    base = counted(4, 6)
    return OrderedDict(
        [
            ("float", counted(2, 3)),
            ("half", counted(5, dtype=torch.float16)),
            ("bfloat16", counted(5, dtype=torch.bfloat16)),
            ("double", counted(5, dtype=torch.float64)),
            ("scalar", torch.tensor(2.5)),
            ("empty", torch.zeros(0, 3)),
            ("bn.num_batches_tracked", torch.tensor(7)),
            ("flags", torch.tensor([True, False])),
            ("transposed", base.t()),
            ("row", base[1]),
            ("part", base[1:3, 2:5]),
            ("steps", base[::2, 1::3]),
            ("channels_last", counted(1, 2, 2, 3).to(memory_format=torch.channels_last)),
            ("expanded", counted(2, 1).expand(2, 3)),
            ("parameter", torch.nn.Parameter(counted(3))),
        ]
    )


class OldPickler(pickle._Pickler):
    """Writes tensors as PyTorch did in 2018: _rebuild_tensor, four arguments."""

    def reducer_override(self, obj):
        if isinstance(obj, torch.Tensor):
            args = (obj.storage(), obj.storage_offset(), tuple(obj.size()), obj.stride())
            return (torch._utils._rebuild_tensor, args)
        return NotImplemented


old_pickle = types.ModuleType("old_pickle")
old_pickle.Pickler = OldPickler
old_pickle.dump = pickle.dump


def save_old(state, name):
    """A legacy file from a GPU: CUDA storages, no batch counters, no _metadata."""
    state = OrderedDict((k, v) for k, v in state.items() if "num_batches" not in k)
    torch.save(state, name, pickle_module=old_pickle, _use_new_zipfile_serialization=False)
    with open(name, "rb") as f:
        data = f.read()
    data = data.replace(b"ctorch\nFloatStorage\n", b"ctorch.cuda\nFloatStorage\n")
    data = data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    with open(name, "wb") as f:
        f.write(data)


def norm(d, name, n, at):
    d[name + ".weight"] = torch.full((n,), 1.0)
    d[name + ".bias"] = torch.full((n,), at / 64)
    d[name + ".running_mean"] = torch.full((n,), -at / 64)
    d[name + ".running_var"] = torch.full((n,), 1 + at / 64)
    d[name + ".num_batches_tracked"] = torch.tensor(at)


def resnet(units, bottleneck=False):
    """A ResNet of width 1 with torchvision's names."""
    d = OrderedDict()
    at = 0

    def conv(name, bn, out, inp, k):
        nonlocal at
        at += 1
        d[name + ".weight"] = counted(out, inp, k, k) / 64
        norm(d, bn, out, at)

    conv("conv1", "bn1", 1, 3, 7)
    inp = 1
    for layer, n in enumerate(units):
        planes = 1 << layer
        out = planes * 4 if bottleneck else planes
        for b in range(n):
            u = f"layer{layer + 1}.{b}"
            sizes = [(planes, 1), (planes, 3), (out, 1)] if bottleneck else [(planes, 3), (out, 3)]
            first = inp
            for i, (o, k) in enumerate(sizes):
                conv(f"{u}.conv{i + 1}", f"{u}.bn{i + 1}", o, inp, k)
                inp = o
            if b == 0 and (layer > 0 or first != out):
                conv(f"{u}.downsample.0", f"{u}.downsample.1", out, first, 1)
    return d, inp


def deeplab(units, classes):
    d, channels = resnet(units)
    for i in range(4):
        d[f"layer5.conv2d_list.{i}.weight"] = counted(classes, channels, 3, 3) / 64
        d[f"layer5.conv2d_list.{i}.bias"] = torch.full((classes,), float(i))
    return d


def discriminator(classes):
    d = OrderedDict()
    inp = classes
    for i, name in enumerate(["conv1", "conv2", "conv3", "conv4", "classifier"]):
        out = 1 if name == "classifier" else 1 << i
        d[name + ".weight"] = counted(out, inp, 4, 4) / 64
        d[name + ".bias"] = torch.full((out,), i / 8)
        inp = out
    return d


def prefixed(d, prefix):
    return OrderedDict((prefix + k, v) for k, v in d.items())


def main():
    torch.save(tensors(), "tensors.pth")
    torch.save(tensors(), "tensors_protocol4.pth", pickle_protocol=4)
    torch.save(tensors(), "tensors_legacy.pth", _use_new_zipfile_serialization=False)
    save_old(OrderedDict(a=counted(2, 3), b=counted(4, 6).t()), "old_cuda.pth")

    model = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.BatchNorm1d(1))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(counted(*p.shape))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(2, 2)).sum().backward()
    optimizer.step()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(counted(*p.shape))
    checkpoint = {
        "epoch": 3,
        "best": 0.5,
        "arch": "linear",
        "optimizer": optimizer.state_dict(),
        "state_dict": torch.nn.DataParallel(model).state_dict(),
    }
    torch.save(checkpoint, "checkpoint.pth")
    torch.save({"g": {"a": counted(1)}, "d": {"a": counted(1)}}, "two.pth")
    torch.save({"epoch": 3}, "nothing.pth")
    torch.save(counted(2), "single.pth")
    torch.save(model, "model.pth")

    save_old(deeplab([1, 2, 1, 1], 3), "generator.pth")
    torch.save(discriminator(3), "discriminator.pth")
    backbone, channels = resnet([1, 1, 1, 1], bottleneck=True)
    backbone["fc.weight"] = counted(10, channels)
    backbone["fc.bias"] = counted(10)
    backbone = OrderedDict((k, v.half() if v.is_floating_point() else v) for k, v in backbone.items())
    torch.save(prefixed(backbone, "module."), "imagenet.pth", _use_new_zipfile_serialization=False)


main()
