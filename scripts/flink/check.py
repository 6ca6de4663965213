"""Holds kubernetes.yaml against schemas: Kubernetes' own, and the operator's for a
FlinkDeployment, which is in its API's jar.

    check.py JAR
"""

import pathlib
import sys
import zipfile

import jsonschema
import kubernetes_validate
import yaml

CRD = "META-INF/fabric8/flinkdeployments.flink.apache.org-v1.yml"


def closed(schema):
    """The schema with unknown fields refused: the API server would drop them silently."""
    if isinstance(schema, dict):
        if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        for v in schema.values():
            closed(v)
    return schema


def main():
    crd = next(yaml.safe_load_all(zipfile.ZipFile(sys.argv[1]).read(CRD)))
    flink = closed({v["name"]: v["schema"]["openAPIV3Schema"] for v in crd["spec"]["versions"]}["v1beta1"])
    flink["properties"] |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
    text = (pathlib.Path(__file__).parent / "kubernetes.yaml").read_text()
    for doc in yaml.safe_load_all(text):
        if doc["kind"] == "FlinkDeployment":
            jsonschema.validate(doc, flink)
        else:
            kubernetes_validate.validate(doc, "1.30", strict=True)
        print(doc["kind"], doc["metadata"]["name"])


if __name__ == "__main__":
    main()
