"""Uploading: the hub's real client, whose requests a function answers as the hub does."""

import base64
import json

import httpx2
import pytest
from huggingface_hub import set_client_factory
from huggingface_hub.utils._http import default_client_factory
from typer.testing import CliRunner

from pretrained import make_pair
from unicross.cli import app
from unicross.errors import CheckpointError
from unicross.export.push import push

NAME = "ann/photos"


class Hub:
    """Takes a new repository and one commit into it; refuses whoever is not ann."""

    def __init__(self):
        self.created, self.files = [], {}

    def __call__(self, request):
        if request.headers.get("Authorization") != "Bearer of-ann":
            return httpx2.Response(401, json={"error": "Invalid username or password."})
        match request.url.path:
            case "/api/repos/create":
                self.created.append(json.loads(request.read()))
                return httpx2.Response(200, json={"url": f"https://huggingface.co/{NAME}"})
            case "/api/models/ann/photos/preupload/main":
                paths = [file["path"] for file in json.loads(request.read())["files"]]
                ways = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
                return httpx2.Response(200, json={"files": ways})
            case "/api/models/ann/photos/commit/main":
                for line in map(json.loads, request.read().splitlines()):
                    if line["key"] == "file":
                        self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                address = f"https://huggingface.co/{NAME}/commit/0"
                return httpx2.Response(200, json={"commitUrl": address, "commitOid": "0"})
            case "/api/validate-yaml":  # is the header of README.md well-formed?
                return httpx2.Response(200, json={"errors": [], "warnings": []})
            case _:
                return httpx2.Response(200, json={"id": NAME, "sha": "0", "siblings": []})


@pytest.fixture
def hub(monkeypatch):
    """Who answers, once a token is given: `hub("of-ann")`; with another function, that one."""

    def of(token, answer=None):
        answer = answer or Hub()
        monkeypatch.setenv("HF_TOKEN", token)
        set_client_factory(lambda: httpx2.Client(transport=httpx2.MockTransport(answer)))
        return answer

    yield of
    set_client_factory(default_client_factory)


def test_what_is_exported_is_uploaded_as_it_is(hub, tmp_path):
    server = hub("of-ann")
    pair = make_pair("clip", tmp_path / "pair")
    result = CliRunner().invoke(app, ["export", str(pair), str(tmp_path / "out"), "--push", NAME])
    assert result.exit_code == 0, result.output
    assert f"uploaded to https://huggingface.co/{NAME}" in result.stdout
    (created,) = server.created
    assert created == {"name": "photos", "organization": "ann", "visibility": "private"}
    written = {str(file.relative_to(tmp_path / "out")): file for file in (tmp_path / "out").rglob("*.*")}
    assert server.files == {name: file.read_bytes() for name, file in written.items()}
    assert {"README.md", "model.safetensors", "tokenizer.json"} <= server.files.keys()


def test_of_an_open_clip_folder_the_tokenizer_is_found_on_the_hub(hub, tmp_path):
    server = hub("of-ann")
    config = {"model_cfg": {"text_cfg": {"hf_tokenizer_name": ".", "width": 8}}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    push(tmp_path, NAME)
    sent = json.loads(server.files["open_clip_config.json"])
    assert sent["model_cfg"]["text_cfg"] == {"hf_tokenizer_name": NAME, "width": 8}


def test_who_is_not_logged_in_is_told(hub, tmp_path):
    hub("of-bob")
    (tmp_path / "README.md").write_text("a card")
    with pytest.raises(CheckpointError, match=r"cannot be uploaded: .*401.*hf auth login"):
        push(tmp_path, NAME)


def test_a_reason_that_is_a_sentence_ends_with_one_full_stop(hub, tmp_path):
    def refuse(request):
        raise httpx2.ConnectError("Set the variable. ", request=request)

    hub("of-ann", refuse)
    with pytest.raises(CheckpointError, match=r"Set the variable\. Log in"):
        push(tmp_path, NAME)


def test_names_that_cannot_be_and_a_hub_that_cannot_be_reached(hub, tmp_path):
    with pytest.raises(CheckpointError, match=r"a/b/c: cannot be uploaded"):
        push(tmp_path, "a/b/c")

    def nowhere(request):
        raise httpx2.ConnectError("Connection refused", request=request)

    hub("of-ann", nowhere)
    with pytest.raises(CheckpointError, match=r"ann/photos: cannot be uploaded: Connection refused"):
        push(tmp_path, NAME)
