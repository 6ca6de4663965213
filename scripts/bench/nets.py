"""advseg's networks in PyTorch: DeepLab-v2 on ResNets and the discriminator.

Names and shapes are those of a bundle's safetensors. check() holds them against
what `advseg bench --json` says about itself.
"""

import argparse
import json
import sys
import warnings

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

UNITS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
STRIDES, DILATIONS = (1, 2, 1, 1), (1, 1, 2, 4)  # of layer1..layer4: an output stride of 8
ASPP = (6, 12, 18, 24)
IGNORE = 255


def conv(cin, cout, k, stride=1, dilation=1):
    return nn.Conv2d(cin, cout, k, stride, dilation * (k - 1) // 2, dilation, bias=False)


class Unit(nn.Module):
    """A residual unit: basic (two 3x3) or bottleneck (1x1, 3x3, 1x1)."""

    def __init__(self, cin, planes, stride, dilation, bottleneck):
        super().__init__()
        cout = planes * (4 if bottleneck else 1)
        self.bottleneck = bottleneck
        if bottleneck:
            self.conv1, self.bn1 = conv(cin, planes, 1, stride), nn.BatchNorm2d(planes)
            self.conv2, self.bn2 = conv(planes, planes, 3, 1, dilation), nn.BatchNorm2d(planes)
            self.conv3, self.bn3 = conv(planes, cout, 1), nn.BatchNorm2d(cout)
        else:
            self.conv1, self.bn1 = conv(cin, planes, 3, stride, dilation), nn.BatchNorm2d(planes)
            self.conv2, self.bn2 = conv(planes, cout, 3, 1, dilation), nn.BatchNorm2d(cout)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or cin != cout:
            self.downsample = nn.Sequential(conv(cin, cout, 1, stride), nn.BatchNorm2d(cout))

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.bottleneck:
            y = self.bn3(self.conv3(self.relu(y)))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Head(nn.Module):
    def __init__(self, cin, classes):
        super().__init__()
        self.conv2d_list = nn.ModuleList(nn.Conv2d(cin, classes, 3, padding=d, dilation=d) for d in ASPP)

    def forward(self, x):
        y = self.conv2d_list[0](x)
        for branch in self.conv2d_list[1:]:
            y = y + branch(x)
        return y


class Generator(nn.Module):
    def __init__(self, arch, width, classes):
        super().__init__()
        bottleneck = arch != "resnet18"
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        cin = width
        for i, n in enumerate(UNITS[arch]):
            units = []
            for b in range(n):
                units.append(Unit(cin, width << i, STRIDES[i] if b == 0 else 1, DILATIONS[i], bottleneck))
                cin = (width << i) * (4 if bottleneck else 1)
            setattr(self, f"layer{i + 1}", nn.Sequential(*units))
        self.layer5 = Head(cin, classes)
        for name, m in self.named_modules():
            if isinstance(m, nn.Conv2d):
                if name.startswith("layer5"):
                    nn.init.normal_(m.weight, std=0.01)
                    nn.init.zeros_(m.bias)
                else:
                    nn.init.kaiming_normal_(m.weight, mode="fan_out")
            elif isinstance(m, Unit):  # see branchScale in pipelines/bench.go
                nn.init.constant_((m.bn3 if bottleneck else m.bn2).weight, 0.25)

    def forward(self, x):
        y = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer5(self.layer4(self.layer3(self.layer2(self.layer1(y)))))


class Discriminator(nn.Module):
    def __init__(self, classes, width):
        super().__init__()
        self.conv1 = nn.Conv2d(classes, width, 4, 2, 1)
        self.conv2 = nn.Conv2d(width, 2 * width, 4, 2, 1)
        self.conv3 = nn.Conv2d(2 * width, 4 * width, 4, 2, 1)
        self.conv4 = nn.Conv2d(4 * width, 8 * width, 4, 2, 1)
        self.classifier = nn.Conv2d(8 * width, 1, 4, 2, 1)
        self.act = nn.LeakyReLU(0.2, inplace=True)

    def forward(self, x):
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = self.act(layer(x))
        return self.classifier(x)


def upsample(x, size):
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


class Inference(nn.Module):
    """Images to softmax maps and confidences, both at the images' size."""

    def __init__(self, spec):
        super().__init__()
        self.size = (spec["image_height"], spec["image_width"])
        self.g = Generator(spec["arch"], spec["width"], spec["classes"])
        self.d = Discriminator(spec["classes"], spec["discriminator_width"])

    def forward(self, x):
        maps = torch.softmax(upsample(self.g(x), self.size), dim=1)
        return maps, torch.sigmoid(upsample(self.d(maps), self.size))


class Training:
    """One iteration as the method's public implementation does it: unlabelled losses, labelled losses, D's losses, both optimisers."""

    def __init__(self, spec, memory_format=torch.contiguous_format, device="cpu"):
        h, w, n, c = spec["image_height"], spec["image_width"], spec["batch"], spec["classes"]
        self.size, self.classes = (h, w), c
        self.g = Generator(spec["arch"], spec["width"], c).to(device=device, memory_format=memory_format).train()
        self.d = Discriminator(c, spec["discriminator_width"]).to(device=device, memory_format=memory_format).train()
        self.opt_g = torch.optim.SGD(self.g.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)
        self.opt_d = torch.optim.Adam(self.d.parameters(), lr=1e-4, betas=(0.9, 0.99))

        def images():
            return torch.randn(n, 3, h, w, device=device).contiguous(memory_format=memory_format)

        self.labelled, self.unlabelled = images(), images()
        self.labels = torch.randint(0, c, (n, h, w), device=device)
        self.truth = torch.randint(0, c, (n, h, w), device=device)
        self.memory_format = memory_format

    def predict(self, x):
        logits = upsample(self.g(x), self.size)
        return logits, torch.softmax(logits, dim=1)

    def judge(self, maps):
        return upsample(self.d(maps), self.size)

    @staticmethod
    def bce(judged, truth):
        return F.binary_cross_entropy_with_logits(judged, torch.full_like(judged, truth))

    def __call__(self):
        self.opt_g.zero_grad(set_to_none=True)
        self.opt_d.zero_grad(set_to_none=True)
        for p in self.d.parameters():
            p.requires_grad_(False)
        logits, maps_u = self.predict(self.unlabelled)
        judged = self.judge(maps_u)
        with torch.no_grad():
            pseudo = torch.where(torch.sigmoid(judged[:, 0]) >= 0.2, logits.argmax(1), IGNORE)
            kept = (pseudo != IGNORE).sum().clamp(min=1)
        semi = F.cross_entropy(logits, pseudo, ignore_index=IGNORE, reduction="sum") / kept
        (0.1 * semi + 0.001 * self.bce(judged, 1.0)).backward()
        maps_u = maps_u.detach()
        del logits, judged, semi

        logits, maps_l = self.predict(self.labelled)
        seg = F.cross_entropy(logits, self.labels, ignore_index=IGNORE)
        (seg + 0.01 * self.bce(self.judge(maps_l), 1.0)).backward()
        maps_l = maps_l.detach()
        del logits, seg

        for p in self.d.parameters():
            p.requires_grad_(True)
        fakes = torch.cat([maps_l, maps_u])
        real = F.one_hot(self.truth, self.classes).permute(0, 3, 1, 2).float()
        real = real.contiguous(memory_format=self.memory_format)
        (0.5 * self.bce(self.judge(fakes), 0.0) + 0.5 * self.bce(self.judge(real), 1.0)).backward()
        self.opt_g.step()
        self.opt_d.step()


def spec_of(report):
    """The network that a report of `advseg bench --json` is about."""
    h, w = (int(v) for v in report["size"].split("x"))
    keys = ("arch", "classes", "width", "discriminator_width", "batch")
    return {k: report[k] for k in keys} | {"image_height": h, "image_width": w}


def conv_layers(spec):
    """Output shape and direct FLOPs of every convolution, by name, without computing anything."""
    found = {}
    with torch.device("meta"):
        model = Inference(spec).eval()
        for net, name in ((model.g, "generator"), (model.d, "discriminator")):
            for path, m in net.named_modules():
                if isinstance(m, nn.Conv2d):

                    def record(m, _, out, key=f"{name} {path}"):
                        found[key] = (list(out.shape), 2 * out.numel() * m.weight[0].numel())

                    m.register_forward_hook(record)
        model(torch.empty(spec["batch"], 3, spec["image_height"], spec["image_width"]))
    return model, found


def check(report):
    """Raises ValueError unless these networks are those of the report."""
    spec = spec_of(report)
    model, layers = conv_layers(spec)
    problems = []

    def same(what, ours, theirs):
        if ours != theirs:
            problems.append(f"{what}: advseg has {ours}, PyTorch {theirs}")

    for net, key in ((model.g, "parameters_generator"), (model.d, "parameters_discriminator")):
        same(key, report[key], sum(p.numel() for p in net.parameters()))
    if report["train"]:
        with FlopCounterMode(display=False) as counter:
            Training(spec, device="meta")()
        # advseg keeps D's logits of the predictions from G's losses for D's own; the
        # usual PyTorch iteration, as above, detaches the maps and asks D again.
        again = 2 * sum(flops for key, (_, flops) in layers.items() if key.startswith("discriminator"))
        same("FLOPs of an iteration", report["flops"], counter.get_total_flops() - again)
    else:
        same("FLOPs", report["flops"] * report["batch"], sum(f for _, f in layers.values()))
    if report.get("layers"):
        ours = {l["name"]: (l["shape"], l["flops"]) for l in report["layers"] if l["flops"]}
        for name in ours.keys() - layers.keys():  # branches that are computed as one are called after their list
            branches = [layers.pop(key) for key in list(layers) if key.startswith(name + ".")]
            if branches:
                layers[name] = (branches[0][0], sum(flops for _, flops in branches))
        same("layers", sorted(ours), sorted(layers))
        for name in ours.keys() & layers.keys():
            same(name, tuple(ours[name]), layers[name])
    if problems:
        raise ValueError("the networks differ:\n  " + "\n  ".join(problems))


def export(spec, path):
    """Writes the inference network as ONNX."""
    torch.manual_seed(1)
    x = torch.randn(spec["batch"], 3, spec["image_height"], spec["image_width"])
    with warnings.catch_warnings():
        # The exporter that needs no further packages says that there is a newer one.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            Inference(spec).eval(), (x,), path, dynamo=False, opset_version=17,
            input_names=["images"], output_names=["maps", "confidence"],
        )


def main():
    p = argparse.ArgumentParser(description="Check that these networks are those of a report on standard input "
                                "(advseg bench --layers --json), or export them as ONNX.")
    p.add_argument("--export", metavar="FILE", help="write ONNX instead")
    args = p.parse_args()
    report = json.load(sys.stdin)
    if args.export:
        export(spec_of(report), args.export)
        return
    try:
        check(report)
    except ValueError as e:
        raise SystemExit(e)


if __name__ == "__main__":
    main()
