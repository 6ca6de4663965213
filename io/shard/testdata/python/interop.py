"""Exchange shards with the Python packages webdataset and tfrecord.

    pip install webdataset==1.0.2 tfrecord==1.14.6 pillow numpy
    python interop.py make DIR    write the shards that the Go tests read
    python interop.py list FILE   print the members of a shard, one JSON line an example

The files beside this one were made by "make"; expected.json is what "list" must
print of any shard with the same examples, whoever wrote it.
"""

import hashlib
import io
import json
import os
import sys

import numpy as np
import tfrecord
import webdataset as wds
from PIL import Image

KEYS = ["street/0001", "street/0002", "caf\u00e9/0003", "long/" + "n" * 110 + "/" + "b" * 120]


def encoded(array, kind):
    out = io.BytesIO()
    Image.fromarray(array).save(out, kind)
    return out.getvalue()


def examples():
    rng = np.random.default_rng(1)
    for i, key in enumerate(KEYS):
        image = encoded(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8), "JPEG" if i % 2 == 0 else "PNG")
        # The second one is not labelled.
        mask = None if i == 1 else encoded(rng.integers(0, 5, (12, 16), dtype=np.uint8), "PNG")
        yield key, "jpg" if i % 2 == 0 else "png", image, mask


def make(folder):
    expected = []
    tars = [wds.TarWriter(os.path.join(folder, name), mtime=0) for name in ("webdataset.tar", "webdataset.tar.gz")]
    records = tfrecord.TFRecordWriter(os.path.join(folder, "deeplab.tfrecord"))
    for key, ext, image, mask in examples():
        sample = {"__key__": key, ext: image}
        if mask is not None:
            sample["mask.png"] = mask
        for t in tars:
            t.write(sample)
        # As research/deeplab/datasets/build_data.py: image_seg_to_tfexample.
        features = {
            "image/encoded": (image, "byte"),
            "image/filename": (f"{key}.{ext}".encode(), "byte"),
            "image/format": ({"jpg": b"jpeg", "png": b"png"}[ext], "byte"),
            "image/height": (12, "int"),
            "image/width": (16, "int"),
            "image/channels": (3, "int"),
        }
        if mask is not None:
            features["image/segmentation/class/encoded"] = (mask, "byte")
            features["image/segmentation/class/format"] = (b"png", "byte")
        records.write(features)
        expected.append(line(key, ext, image, mask))
    for t in tars:
        t.close()
    records.close()
    with open(os.path.join(folder, "expected.json"), "w") as f:
        f.write("".join(expected))


def line(key, ext, image, mask):
    """Bytes by their digest, and the pixels as Pillow sees them."""
    out = {"key": key, "ext": ext, "image": digest(image), "pixels": pixels(image)}
    if mask is not None:
        out |= {"mask": digest(mask), "mask_pixels": pixels(mask)}
    return json.dumps(out) + "\n"


def digest(data):
    return hashlib.sha256(data).hexdigest()


def pixels(data):
    image = Image.open(io.BytesIO(data))
    return f"{image.mode} {image.width}x{image.height} {digest(image.tobytes())}"


def read(path):
    if ".tfrecord" in path:
        kinds = {"image/encoded": "byte", "image/filename": "byte", "image/format": "byte",
                 "image/height": "int", "image/width": "int",
                 "image/segmentation/class/encoded": "byte", "image/segmentation/class/format": "byte"}
        compression = "gzip" if path.endswith(".gz") else None
        for r in tfrecord.tfrecord_loader(path, None, None, compression_type=compression):
            image = bytes(r["image/encoded"])
            size = Image.open(io.BytesIO(image)).size
            assert (int(r["image/width"][0]), int(r["image/height"][0])) == size, (r["image/width"], size)
            key, ext = os.path.splitext(bytes(r["image/filename"]).decode())
            mask = r.get("image/segmentation/class/encoded")
            assert set(r) <= set(kinds) | {"image/channels"}, r.keys()
            yield key, ext[1:], image, None if mask is None else bytes(mask)
        return
    for sample in wds.WebDataset(path, shardshuffle=False):
        ext = "jpg" if "jpg" in sample else "png"
        yield sample["__key__"], ext, sample[ext], sample.get("mask.png")


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2])
    else:
        sys.stdout.writelines(line(*ex) for ex in read(sys.argv[2]))
