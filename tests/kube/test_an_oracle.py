"""Whether this build of the API server may judge anything."""

from __future__ import annotations

from fixtures.kubereal import KubeServer


def test_an_empty_text_is_a_text(server: KubeServer) -> None:
    # Built with Go 1.18 or later it would read it as null, and refuse it.
    version = {"name": "v1", "served": True, "storage": True}
    text = {"type": "object", "properties": {"name": {"type": "string"}}}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": text}}}
    group = "oracle.airlock.test"
    spec = {
        "group": group,
        "scope": "Cluster",
        "names": {"kind": "Word", "plural": "words"},
        "versions": [version | {"schema": schema}],
    }
    kind = "CustomResourceDefinition"
    meta = {"name": f"words.{group}"}
    definitions = "apiextensions.k8s.io/v1"
    server.put({"apiVersion": definitions, "kind": kind, "metadata": meta, "spec": spec})
    word = {"apiVersion": f"{group}/v1", "kind": "Word", "metadata": {"name": "w"}}
    try:
        assert server.put(word | {"spec": {"name": ""}})["spec"] == {"name": ""}
    finally:
        server.ask("DELETE", f"/apis/{definitions}/customresourcedefinitions/{meta['name']}")
