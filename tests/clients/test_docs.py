"""What the documents and the deployment files say is true."""

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tomllib
from pathlib import Path

import botocore
import botocore.exceptions
import pytest
import yaml

from brokers import PORTS, REPO, free_offset, make_pki, skein_binary

FIRST_NODE = REPO / "docs/first-node.md"
COMPATIBILITY = REPO / "docs/aws-compatibility.md"


def check(tmp_path, text, environment={}):
    """`skein config check` on a text whose files are put where they can be found."""
    if not (tmp_path / "pki").exists():
        make_pki(tmp_path / "pki")
    for key, file in {
        "certificate": "server.pem", "private_key": "server.key", "issuer_certificate": "ca.pem", "issuer_private_key": "ca.key",
    }.items():
        text = re.sub(rf'(?m)^(# )?{key} = ".*"', f'{key} = "{tmp_path}/pki/{file}"', text)
    # Whoever runs the tests need not be able to write to /var/lib.
    text = re.sub(r'(?m)^data = ".*"', f'data = "{tmp_path}/data"', text)
    # Nor that there is a folder in /var/log.
    text = re.sub(r'(?m)^file = ".*"', f'file = "{tmp_path}/audit.jsonl"', text)
    path = tmp_path / "skein.toml"
    path.write_text(text)
    return subprocess.run([skein_binary(), "config", "check", path], capture_output=True, text=True, timeout=30, env=os.environ | environment)


@pytest.mark.skein
@pytest.mark.parametrize("file", ["deploy/skein.toml", "deploy/kustomize/base/skein.toml"])
def test_example_configurations(tmp_path, file):
    done = check(tmp_path, (REPO / file).read_text())
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skein
def test_example_configuration_of_a_cluster(tmp_path):
    keys = tmp_path / "keys"
    subprocess.run([skein_binary(), "cluster", "keys", "--out", keys, "1", "2", "3"], check=True, capture_output=True)
    text = (REPO / "deploy/kustomize/cluster/skein.toml").read_text().replace("/etc/skein/cluster", str(keys))
    for node in (1, 2, 3):
        of_pod = {
            "SKEIN__CLUSTER__NODE": f"{node}",
            "SKEIN__CLUSTER__CERTIFICATE": f"{keys}/node-{node}.pem",
            "SKEIN__CLUSTER__PRIVATE_KEY": f"{keys}/node-{node}.key",
        }
        done = check(tmp_path, text, of_pod)
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
    parts = ("backup", "audit", "registration", "jwt", "oidc")
    sources = [REPO / "node/src/config.rs", *(REPO / f"node/src/config/{part}.rs" for part in parts)]
    source = "".join(file.read_text() for file in sources)
    document = (REPO / "docs/configuration.md").read_text()
    keys = set(re.findall(r"(?m)^    pub (\w+): ", source))
    assert len(keys) > 30
    assert not [key for key in keys if not re.search(rf"\b{key}\b", document)]


def anchors(path):
    """The headings of a document, as its links name them."""
    headings = re.findall(r"(?m)^#+ (.*)$", re.sub(r"(?ms)^```.*?^```", "", path.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links():
    documents = [path for folder in (".", "docs", "docs/*", "deploy/*", "examples/*") for path in REPO.glob(f"{folder}/*.md")]
    links = [(path, link) for path in documents for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text())]
    broken = []
    for path, link in links:
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        if "://" not in link and not (target.exists() and (not anchor or anchor in anchors(target))):
            broken.append((str(path), link))
    assert len(links) > 20
    assert not broken


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


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_cluster_is_of_one_piece():
    folder = REPO / "deploy/kustomize/cluster"
    built = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=True)
    objects = {(o["kind"], o["metadata"]["name"]): o for o in yaml.safe_load_all(built.stdout)}
    stateful = objects["StatefulSet", "skein"]["spec"]
    config = tomllib.loads((folder / "skein.toml").read_text())
    first, count = stateful["ordinals"]["start"], stateful["replicas"]
    # Founders are numbered from 1 on.
    assert (first, count) == (1, config["cluster"]["founders"])
    assert config["cluster"]["dns"] == f"skein-{{node}}.{stateful['serviceName']}:7400"
    service = objects["Service", stateful["serviceName"]]["spec"]
    assert service["clusterIP"] == "None" and service["publishNotReadyAddresses"]
    (container,) = stateful["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports["peer"] == 7400
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"] for volume in stateful["template"]["spec"]["volumes"]}
    assert mounts == volumes | {"data"}
    allowed = objects["NetworkPolicy", "skein"]["spec"]["ingress"]
    (between,) = [rule for rule in allowed if {"port": "peer"} in rule["ports"]]
    assert between["from"] == [{"podSelector": {"matchLabels": stateful["selector"]["matchLabels"]}}]


def test_metrics_that_documents_name_exist():
    source = "".join(path.read_text() for path in REPO.glob("*/src/**/*.rs"))
    described = set(re.findall(r'describe_(?:counter|gauge|histogram)!\(\s*"(\w+)"', source))
    documents = [*REPO.glob("docs/**/*.md"), *REPO.glob("deploy/**/*"), REPO / "README.md"]
    named = set()
    for path in documents:
        if path.is_file():
            named |= set(re.findall(r"\b((?:gateway|core|raft|storage|session|shadow|outbox|registration|retained)_\w+)\b", path.read_text()))
    families = {name.removesuffix("_bucket") for name in named}
    assert "gateway_connections" in families
    keys = re.findall(r"(?m)^(?:# )?(\w+) =", (REPO / "docs/configuration.md").read_text())
    assert families - described - set(keys) == set()


# The first node and the compatibility document: everything in them is run as it is written.


def programs(document, offset):
    """The shell commands and programs of a document, on other ports, as commands for bash."""
    ports = {str(port): str(port + offset) for port in PORTS.values()}
    interpreters = {"python": "python", "js": "node"}
    for language, code in re.findall(r"(?ms)^```(sh|python|js)\n(.*?)^```$", document.read_text()):
        code = re.sub(r"\b\d{4}\b", lambda port: ports.get(port[0], port[0]), code)
        yield code if language == "sh" else f"{interpreters[language]} - <<'PROGRAM'\n{code}PROGRAM\n"


class Reader:
    """Somebody who copies commands into a shell, in one folder."""

    def __init__(self, folder):
        (folder / "bin").mkdir()
        (folder / "bin/skein").symlink_to(skein_binary().resolve())
        path = [str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "SKEIN_"))}
        packages = {"PATH": ":".join(path), "NODE_PATH": str(REPO / "tests/clients/node_modules")}
        self.folder, self.environment, self.offset = folder, clean | packages, free_offset()

    def run(self, commands):
        """What the commands print."""
        out = self.folder / "out.txt"
        with out.open("wb") as file:
            # Not a pipe: the node that the commands start would hold it open.
            words = ["bash", "-euo", "pipefail", "-c", "".join(commands)]
            done = subprocess.run(
                words, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file, timeout=180
            )
        assert done.returncode == 0, out.read_text()
        return out.read_text()


@pytest.fixture(scope="module")
def first_node(tmp_path_factory):
    """The node of first-node.md with its device, and what the commands up to there printed."""
    reader = Reader(tmp_path_factory.mktemp("first"))
    *commands, stop = programs(FIRST_NODE, reader.offset)
    try:
        reader.printed = reader.run(commands)
        yield reader
    finally:
        if (reader.folder / "skein.pid").exists():
            reader.run([stop])


@pytest.mark.skein
def test_first_node(first_node):
    assert "\nready\n" in first_node.printed
    assert "devices/lamp/commands blink\n" in first_node.printed
    assert re.search(r'shadow/update/delta .*"state":{"light":"on"}', first_node.printed)
    assert '"state":{"desired":{"light":"on"},"reported":{"light":"on"}}' in first_node.printed


@pytest.mark.skein
def test_certificate_of_the_first_node_satisfies_strict_verifiers(first_node):
    context = ssl.create_default_context(cafile=first_node.folder / "pki/ca.pem")
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    address = ("127.0.0.1", PORTS["wss"] + first_node.offset)
    for host in ("localhost", "127.0.0.1"):
        with socket.create_connection(address, 10) as raw, context.wrap_socket(raw, server_hostname=host) as secure:
            assert secure.version() == "TLSv1.3"


@pytest.mark.skein
def test_programs_of_the_compatibility_document(first_node):
    printed = first_node.run([". ./access-key.env\n", *programs(COMPATIBILITY, first_node.offset)])
    assert "mTLS: b'hello'" in printed
    assert "SigV4: sent" in printed
    assert "Role alias: sent" in printed
    assert "A CA of our own: sent" in printed
    assert "Provisioned: sensor-7 every 5 s" in printed
    assert "JavaScript v2: sent" in printed and "JavaScript v1: sent" in printed
    assert '"message":"OK"' in printed


def compatibility_table(heading):
    """(first cell, operations) of each row of a table."""
    section = COMPATIBILITY.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"(?m)^\| (.+?) \| (.+?) \|$", section)[1:]
    return [(cell, operations.split(", ")) for cell, operations in rows]


def operations_offered():
    """(API, operation), as the document lists them."""
    return [(row.split("`")[1], name) for row, names in compatibility_table("Operations") for name in names]


def test_operations_are_those_of_the_router():
    source = (REPO / "api/src/routes.rs").read_text()
    routes = re.findall(r'(?m)^    (Control|Data) "[A-Z]+" "\S+" (\w+) \w+,$', source)
    router = {({"Control": "iot", "Data": "iot-data"}[plane], name) for plane, name in routes}
    offered = operations_offered()
    assert set(offered) == router
    assert len(offered) == len(router)


@pytest.fixture
def call(skein, name):
    """Calls an operation with whatever it needs; gives the code of the error, if it is one."""
    clients = {api: skein.boto(api, parameter_validation=False) for api in ("iot", "iot-data")}
    examples = {
        "string": name, "structure": {}, "list": [], "map": {}, "blob": b"{}", "boolean": True, "integer": 1, "long": 1, "timestamp": 0,
    }

    def call(api, operation):
        shape = clients[api].meta.service_model.operation_model(operation).input_shape
        needed = shape.required_members if shape else []
        parameters = {member: examples[shape.members[member].type_name] for member in needed}
        try:
            getattr(clients[api], botocore.xform_name(operation))(**parameters)
        except botocore.exceptions.ClientError as error:
            return error.response["Error"]["Code"]
        return None

    call.operations = {(api, name) for api, client in clients.items() for name in client.meta.service_model.operation_names}
    return call


@pytest.mark.skein
def test_listed_operations_are_known_and_no_others(call):
    offered = set(operations_offered())
    assert offered < call.operations
    answers = {operation: call(*operation) for operation in sorted(call.operations)}
    known = {operation for operation, code in answers.items() if code != "UnknownOperationException"}
    assert known == offered
    assert not [operation for operation in offered if answers[operation] == "MethodNotAllowedException"]
    missing = {operation for _, operations in compatibility_table("Not there yet") for operation in operations}
    assert missing <= {operation for _, operation in call.operations - offered}
