# SPDX-License-Identifier: Apache-2.0
"""Checks each manifest against the published schemas of the Kubernetes versions that are named as arguments.

Beyond the schemas: kustomizations name files that are there, selectors match the labels of their pods, and what is
mounted is a volume of the pod.
"""

import pathlib
import sys

import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parent


def documents(path):
    with path.open(encoding="utf-8") as file:
        return [document for document in yaml.safe_load_all(file) if document]


def schema_problems(path, document, versions):
    for version in versions:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            where = "/".join(str(step) for step in error.path)
            yield f"{path.name}: {document['kind']} for Kubernetes {version}: {where}: {error.message}"


def pod_problems(path, document):
    template = document.get("spec", {}).get("template")
    if document["kind"] not in ("Deployment", "StatefulSet") or template is None:
        return
    labels = template["metadata"]["labels"]
    for key, value in document["spec"]["selector"]["matchLabels"].items():
        if labels.get(key) != value:
            yield f"{path.name}: the selector's {key}={value} is no label of the pod"
    volumes = {volume["name"] for volume in template["spec"].get("volumes", [])}
    for container in template["spec"]["containers"]:
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                yield f"{path.name}: {container['name']} mounts {mount['name']}, which is no volume of the pod"


def kustomization_problems(path, document):
    for resource in document.get("resources", []):
        if not (path.parent / resource).exists():
            yield f"{path.parent.name}/{path.name}: {resource} is not there"


def main():
    versions = sys.argv[1:]
    problems, count = [], 0
    for path in sorted(ROOT.rglob("*.yaml")):
        for document in documents(path):
            if document["kind"] == "Kustomization":
                problems += kustomization_problems(path, document)
                continue
            count += 1
            problems += schema_problems(path, document, versions)
            problems += pod_problems(path, document)
    for problem in problems:
        print(f"check-deploy: {problem}", file=sys.stderr)
    if count == 0:
        problems.append("no manifests")
    print(f"check-deploy: manifests: {count} checked for Kubernetes {', '.join(versions)}, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
