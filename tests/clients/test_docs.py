"""What the documents and the deployment files say is true."""

import re
import subprocess

import pytest
import yaml

from brokers import REPO, make_pki, skein_binary


def check(tmp_path, text):
    """`skein config check` on a text whose files are put where they can be found."""
    if not (tmp_path / "pki").exists():
        make_pki(tmp_path / "pki")
    for key, file in {
        "certificate": "server.pem", "private_key": "server.key", "issuer_certificate": "ca.pem", "issuer_private_key": "ca.key",
    }.items():
        text = re.sub(rf'(?m)^(# )?{key} = ".*"', f'{key} = "{tmp_path}/pki/{file}"', text)
    # Whoever runs the tests need not be able to write to /var/lib.
    text = re.sub(r'(?m)^data = ".*"', f'data = "{tmp_path}/data"', text)
    path = tmp_path / "skein.toml"
    path.write_text(text)
    return subprocess.run([skein_binary(), "config", "check", path], capture_output=True, text=True, timeout=30)


@pytest.mark.skein
@pytest.mark.parametrize("file", ["deploy/skein.toml", "deploy/kustomize/base/skein.toml"])
def test_example_configurations(tmp_path, file):
    done = check(tmp_path, (REPO / file).read_text())
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skein
@pytest.mark.parametrize("commented", [True, False])
def test_configuration_document(tmp_path, commented):
    """The block with every key is a valid file, also with the keys that have no default."""
    (block,) = re.findall(r"```toml\n(.*?)```", (REPO / "docs/configuration.md").read_text(), re.S)
    if not commented:
        block = re.sub(r"(?m)^# (\w+ = |\[\[)", r"\1", block).replace("anonymous_policy = '…'", "")
    done = check(tmp_path, block)
    assert done.returncode == 0, done.stdout + done.stderr


def test_configuration_document_is_complete():
    source = (REPO / "node/src/config.rs").read_text()
    document = (REPO / "docs/configuration.md").read_text()
    keys = set(re.findall(r"(?m)^    pub (\w+): ", source))
    assert len(keys) > 30
    assert not [key for key in keys if not re.search(rf"\b{key}\b", document)]


def test_links_of_the_readme():
    for link in re.findall(r"\]\(([^)#]+)\)", (REPO / "README.md").read_text()):
        assert (REPO / link).exists(), link


def test_kustomize_base_is_of_one_piece():
    base = REPO / "deploy/kustomize/base"
    kustomization = yaml.safe_load((base / "kustomization.yaml").read_text())
    objects = [o for name in kustomization["resources"] for o in yaml.safe_load_all((base / name).read_text())]
    (stateful,) = [o for o in objects if o["kind"] == "StatefulSet"]
    (container,) = stateful["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    config = (base / "skein.toml").read_text()
    for name, port in ports.items():
        assert re.search(rf'\[listeners\.{name}\]\naddress = "0\.0\.0\.0:{port}"', config), name
    for service in (o for o in objects if o["kind"] == "Service"):
        assert all(port["targetPort"] in ports for port in service["spec"]["ports"]), service["metadata"]["name"]
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"] for volume in stateful["spec"]["template"]["spec"]["volumes"]}
    assert mounts == volumes | {"data"}


def test_metrics_that_documents_name_exist():
    source = "".join(path.read_text() for path in REPO.glob("*/src/**/*.rs"))
    described = set(re.findall(r'describe_(?:counter|gauge|histogram)!\(\s*"(\w+)"', source))
    documents = [*REPO.glob("docs/**/*.md"), *REPO.glob("deploy/**/*"), REPO / "README.md"]
    named = set()
    for path in documents:
        if path.is_file():
            named |= set(re.findall(r"\b((?:gateway|core|raft|storage|session|shadow|outbox|retained)_\w+)\b", path.read_text()))
    families = {name.removesuffix("_bucket") for name in named}
    assert "gateway_connections" in families
    keys = re.findall(r"(?m)^(?:# )?(\w+) =", (REPO / "docs/configuration.md").read_text())
    assert families - described - set(keys) == set()
