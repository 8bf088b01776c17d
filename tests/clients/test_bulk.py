"""Registration in bulk: each line once, whatever happens meanwhile, and a report that says what came of it."""

import json
import os
import re
import urllib.error
import urllib.request

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from brokers import SkeinCluster, wait_until
from store import Store
from test_authorities import refused as refused_with
from test_provisioning import ROLE, csr, written

pytestmark = pytest.mark.skein
BUCKET = "dev-bucket"
ALLOW = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}
WAIT = 60


def template(name, **parameters):
    """A thing that is called as the line says, with a certificate for the key of the line."""
    text = {"Type": "String"}
    return json.dumps({
        "Parameters": {"Serial": text, "CSR": text, **parameters},
        "Resources": {
            "thing": {
                "Type": "AWS::IoT::Thing",
                "Properties": {
                    "ThingName": {"Fn::Join": ["-", [name, {"Ref": "Serial"}]]},
                    "AttributePayload": {"serial": {"Ref": "Serial"}},
                },
            },
            "certificate": {
                "Type": "AWS::IoT::Certificate", "Properties": {"CertificateSigningRequest": {"Ref": "CSR"}},
            },
            "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": ALLOW}},
        },
    })


@pytest.fixture(scope="module")
def key():
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def request_text(key):
    return csr(key)


def refused(call, code, status):
    """What a refusal says."""
    return refused_with(call, code, status)["Error"]["Message"]


class Bulk:
    """Somebody who registers in bulk at a node whose bucket is a folder."""

    def __init__(self, node, put=None, bucket=BUCKET):
        self.iot, self.bucket = node.boto("iot"), bucket
        self.folder = node.data / "registration" / bucket
        self.put = put or self.put_file

    def put_file(self, key, content):
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def start(self, key, body, lines=None, bucket=None):
        if lines is not None:
            content = lines if isinstance(lines, bytes) else "".join(f"{line}\n" for line in lines).encode()
            self.put(key, content)
        started = self.iot.start_thing_registration_task(
            templateBody=body, inputFileBucket=bucket or self.bucket, inputFileKey=key, roleArn=ROLE
        )
        return started["taskId"]

    def describe(self, task):
        return self.iot.describe_thing_registration_task(taskId=task)

    def ended(self, task, seconds=WAIT):
        """What is said of a task that has ended."""
        def has_ended():
            found = self.describe(task)
            return found if found["status"] in ("Completed", "Failed", "Cancelled") else None

        return wait_until("the task has ended", has_ended, seconds)

    def links(self, task, kind, **more):
        return self.iot.list_thing_registration_task_reports(taskId=task, reportType=kind, **more)

    def report(self, task, kind):
        """Line number -> what a report says."""
        links, token = [], {}
        while True:
            page = self.links(task, kind, **token)
            assert page["reportType"] == kind
            links += page["resourceLinks"]
            if "nextToken" not in page:
                break
            token = {"nextToken": page["nextToken"]}
        lines = [json.loads(line) for link in links for line in fetched(link).splitlines()]
        numbers = [line["lineNumber"] for line in lines]
        assert len(numbers) == len(set(numbers)), "each line once"
        return {line["lineNumber"]: line for line in lines}


def fetched(link):
    with urllib.request.urlopen(link, timeout=20) as answer:
        assert answer.headers["Content-Type"] == "application/x-ndjson"
        return answer.read().decode()


def denied(link):
    with pytest.raises(urllib.error.HTTPError) as found:
        fetched(link)
    return found.value.code


def line(serial, request, **more):
    return json.dumps({"Serial": str(serial), "CSR": request} | more)


@pytest.fixture
def bulk(skein):
    return Bulk(skein)


def certificates_of(iot, name, serials):
    return [iot.list_thing_principals(thingName=f"{name}-{serial}")["principals"] for serial in serials]


def test_every_line_makes_a_device_that_can_connect(bulk, key, request_text, dial, tmp_path, name):
    # The end of the last line is missing, and one is blank.
    content = "\n".join([line(1, request_text), "", line(2, request_text) + "\r", line(3, request_text)]).encode()
    body = template(name)
    task = bulk.start(f"{name}/devices.json", body, content)
    done = bulk.ended(task)
    assert (done["status"], done["successCount"], done["failureCount"], done["percentageProgress"]) == ("Completed", 3, 0, 100)
    assert (done["taskId"], done["templateBody"], done["roleArn"]) == (task, body, ROLE)
    assert (done["inputFileBucket"], done["inputFileKey"]) == (BUCKET, f"{name}/devices.json")
    assert done["lastModifiedDate"] >= done["creationDate"] and "message" not in done
    results = bulk.report(task, "RESULTS")
    assert sorted(results) == [1, 3, 4] and bulk.report(task, "ERRORS") == {}
    for number, serial in ((1, 1), (3, 2), (4, 3)):
        result = results[number]
        assert content[result["offset"]:].startswith(b'{"Serial": "%d"' % serial)
        arns = result["response"]["resourceArns"]
        assert set(arns) == {"thing", "certificate", "policy"} and arns["thing"].endswith(f":thing/{name}-{serial}")
        assert certificates_of(bulk.iot, name, [serial]) == [[arns["certificate"]]]
    device = written(tmp_path, name, results[3]["response"]["certificatePem"], key)
    with dial(listener="tls", device=device) as client:
        assert client.connect(f"{name}-2").reason == 0
    assert task in bulk.iot.list_thing_registration_tasks()["taskIds"]
    assert task in bulk.iot.list_thing_registration_tasks(status="Completed")["taskIds"]
    assert task not in bulk.iot.list_thing_registration_tasks(status="Failed")["taskIds"]


def test_a_line_that_is_wrong_harms_no_other(bulk, request_text, name):
    bulk.iot.create_thing(thingName=f"{name}-there", attributePayload={"attributes": {"serial": "another"}})
    body = json.loads(template(name, Loc={"Type": "String", "Default": "x"}))
    body["Resources"]["thing"]["OverrideSettings"] = {"AttributePayload": "FAIL"}
    invalid = "InvalidRequestException"
    wrong = {
        2: ('{"Serial": "2"', invalid, "column 14: EOF"),
        3: (json.dumps({"Serial": "3", "CSR": "x" * (256 * 1024)}), invalid, "more than 262144 bytes"),
        4: (line(4, request_text, Lok="y"), invalid, 'no parameter "Lok"'),
        5: ('{"Serial": "5"}', "ResourceRegistrationFailureException", "CSR"),
        6: (line("no name/", request_text), "ResourceRegistrationFailureException", "thingName"),
        7: (line(7, "no request"), "ResourceRegistrationFailureException", "certificate"),
        8: ('["8"]', invalid, "not an object"),
        9: ('{"Serial": 9, "CSR": ""}', invalid, '"Serial" is not a text'),
        10: ('{"Serial": "10", "Serial": "11"}', invalid, "there twice"),
        11: ("[" * 100_000, invalid, "recursion"),
        12: (line("there", request_text), "ConflictingResourceUpdateException", f"thing/{name}-there"),
        13: (line(13, request_text, **{"AWS::IoT::Certificate::Id": "x"}), invalid, "no parameter"),
    }
    lines = [line(1, request_text), *(text for text, _, _ in wrong.values()), line(14, request_text)]
    task = bulk.start(f"{name}.json", json.dumps(body), lines)
    done = bulk.ended(task)
    assert (done["status"], done["successCount"], done["failureCount"]) == ("Completed", 2, len(wrong)), done
    assert sorted(bulk.report(task, "RESULTS")) == [1, 14]
    errors = bulk.report(task, "ERRORS")
    assert sorted(errors) == sorted(wrong)
    for number, (_, code, part) in wrong.items():
        found = errors[number]
        assert found["errorCode"] == code and part in found["errorMessage"], found
        assert set(found) == {"lineNumber", "offset", "errorCode", "errorMessage"}


def test_an_object_of_nothing_is_done_at_once(bulk, name):
    for content in (b"", b"\n\n \r\n"):
        task = bulk.start(f"{name}.json", template(name), content)
        done = bulk.ended(task)
        assert (done["status"], done["successCount"], done["failureCount"]) == ("Completed", 0, 0)
        assert bulk.links(task, "RESULTS")["resourceLinks"] == []


@pytest.mark.parametrize("key", [
    "../aws/credentials", "../../aws/credentials", "/etc/passwd", "a/../../../pki/ca.key", "..", "a//b", "a/", "%2e%2e/x", "a b", "k" * 1025,
])
def test_no_key_leads_out_of_the_bucket(bulk, key, name):
    start = lambda: bulk.start(key, template(name))
    assert "inputFileKey" in refused(start, "InvalidRequestException", 400)


def test_no_link_leads_out_of_the_bucket(bulk, skein, name):
    (bulk.folder / f"{name}-link").symlink_to(skein.data / "aws" / "credentials")
    (bulk.folder / f"{name}-folder").symlink_to(skein.data / "aws")
    os.mkfifo(bulk.folder / f"{name}-pipe")
    for key, why in (
        (f"{name}-link", "symbolic link"), (f"{name}-folder/credentials", "symbolic link"),
        (f"{name}-pipe", "not a file"), (f"{name}-none", "no such object"),
    ):
        done = bulk.ended(bulk.start(key, template(name)))
        assert done["status"] == "Failed" and why in done["message"] and f"{BUCKET}/{key}" in done["message"], done
        assert (done["successCount"], done["failureCount"]) == (0, 0)


@pytest.mark.parametrize("wrong", [
    {"inputFileBucket": "another-bucket"}, {"inputFileBucket": "no/bucket"}, {"inputFileBucket": "ab"},
    {"templateBody": "{}"}, {"templateBody": "{"}, {"templateBody": " " * 10_241}, {"roleArn": "no ARN of a role, but long"},
    {"given": True}, {"missing": "inputFileKey"}, {"missing": "inputFileBucket"}, {"missing": "templateBody"}, {"missing": "roleArn"},
])
def test_what_could_never_be_done_is_refused(bulk, skein, wrong, name):
    body = json.loads(template(name))
    if wrong.pop("given", False):
        given = {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}}
        body["Resources"]["certificate"]["Properties"] = given
    asked = {
        "templateBody": json.dumps(body), "inputFileBucket": BUCKET, "inputFileKey": "x.json", "roleArn": ROLE,
    }
    missing = wrong.pop("missing", None)
    asked.pop(missing, None)
    iot = skein.boto("iot", parameter_validation=False)
    said = refused(lambda: iot.start_thing_registration_task(**asked | wrong), "InvalidRequestException", 400)
    assert (missing or next(iter(wrong), "templateBody")) in said, said


def test_what_is_not_there_is_said(bulk, name):
    iot, unknown = bulk.iot, "00000000-0000-4000-8000-000000000000"
    not_found = "ResourceNotFoundException"
    refused(lambda: iot.describe_thing_registration_task(taskId=unknown), not_found, 404)
    refused(lambda: iot.stop_thing_registration_task(taskId=unknown), not_found, 404)
    refused(lambda: bulk.links(unknown, "RESULTS"), not_found, 404)
    task = bulk.start(f"{name}.json", template(name), [])
    bulk.ended(task)
    invalid = "InvalidRequestException"
    assert "Completed" in refused(lambda: iot.stop_thing_registration_task(taskId=task), invalid, 400)
    refused(lambda: bulk.links(task, "ALL"), invalid, 400)
    refused(lambda: iot.list_thing_registration_tasks(status="Done"), invalid, 400)
    refused(lambda: iot.list_thing_registration_tasks(nextToken="made up"), invalid, 400)


def test_a_link_is_for_one_part_and_not_to_be_made_up(bulk, request_text, name):
    lines = [line(number, request_text) if number % 2 else "{}" for number in range(1100)]
    task = bulk.start(f"{name}.json", template(name), lines)
    assert bulk.ended(task)["status"] == "Completed"
    links = bulk.links(task, "RESULTS")["resourceLinks"]
    assert len(links) == 3
    first = bulk.links(task, "RESULTS", maxResults=2)
    rest = bulk.links(task, "RESULTS", maxResults=2, nextToken=first["nextToken"])
    parts = lambda links: [link.partition("?")[0] for link in links]
    assert parts(first["resourceLinks"] + rest["resourceLinks"]) == parts(links) and "nextToken" not in rest
    assert len(bulk.report(task, "RESULTS")) == len(bulk.report(task, "ERRORS")) == 550
    for changed in (
        links[0].replace("results-000000", "results-000001"), links[0].replace("results-000000", "errors-000000"),
        links[0].replace("results-000000", "results-0"), links[0].replace("results-000000", "results-..%2f..%2faws"),
        links[0].replace(task, "00000000-0000-4000-8000-000000000000"), links[0].partition("?")[0],
        re.sub(r"expires=(\d)", r"expires=9\1", links[0]), links[0][:-1] + ("0" if links[0][-1] != "0" else "1"),
        re.sub(r"expires=\d+", "expires=1", links[0]),
    ):
        assert denied(changed) == 403, changed
    with pytest.raises(urllib.error.HTTPError) as found:
        fetched(re.sub(r"expires=\d+", "expires=x", links[0]))
    assert found.value.code == 400 and "expires must be a second of the epoch, not 'x'" in found.value.read().decode()


@pytest.fixture
def fresh(fresh_broker):
    return Bulk(fresh_broker)


def some_are_done(bulk, task):
    return wait_until("some lines are done", lambda: bulk.describe(task)["successCount"], WAIT)


def test_one_at_a_time_and_it_can_be_stopped(fresh, request_text, name):
    lines = [line(number, request_text) for number in range(20_000)]
    task = fresh.start(f"{name}.json", template(name), lines)
    again = lambda: fresh.start(f"{name}.json", template(name))
    assert task in refused(again, "InvalidRequestException", 400)
    some_are_done(fresh, task)
    # Others are served meanwhile.
    fresh.iot.create_thing(thingName=f"{name}-another")
    assert fresh.iot.list_thing_registration_tasks(status="InProgress")["taskIds"] == [task]
    fresh.iot.stop_thing_registration_task(taskId=task)
    assert fresh.describe(task)["status"] in ("Cancelling", "Cancelled")
    done = fresh.ended(task)
    assert done["status"] == "Cancelled" and 0 < done["successCount"] < len(lines)
    assert 0 < done["percentageProgress"] < 100
    assert len(fresh.report(task, "RESULTS")) == done["successCount"]
    things = sum(len(page["things"]) for page in fresh.iot.get_paginator("list_things").paginate(attributeName="serial"))
    assert things == done["successCount"]
    next_one = fresh.start("next.json", template(name), [line("next", request_text)])
    assert fresh.ended(next_one)["successCount"] == 1


def all_once(bulk, task, name, count):
    """All is done, nothing twice, and the report says what there is."""
    done = bulk.ended(task, 120)
    assert (done["status"], done["successCount"], done["failureCount"]) == ("Completed", count, 0), done
    results = bulk.report(task, "RESULTS")
    assert sorted(results) == list(range(1, count + 1))
    listed = [
        certificate["certificateArn"]
        for page in bulk.iot.get_paginator("list_certificates").paginate() for certificate in page["certificates"]
    ]
    reported = [results[number]["response"]["resourceArns"] for number in results]
    assert len({arns["certificate"] for arns in reported}) == count
    # Beside those of the report there is at most that of the node's own development thing.
    assert len(set(listed) - {arns["certificate"] for arns in reported}) <= 1
    assert {arns["thing"].rpartition("/")[2] for arns in reported} == {f"{name}-{serial}" for serial in range(count)}
    for number in (1, count // 2, count):
        response = results[number]["response"]
        assert response["certificatePem"].startswith("-----BEGIN CERTIFICATE-----")
        assert certificates_of(bulk.iot, name, [number - 1]) == [[response["resourceArns"]["certificate"]]]


def test_a_node_that_is_killed_goes_on_and_does_nothing_twice(fresh_broker, fresh, request_text, name):
    count = 4000
    task = fresh.start(f"{name}.json", template(name), [line(number, request_text) for number in range(count)])
    for _ in range(2):
        before = some_are_done(fresh, task)
        assert before < count
        fresh_broker.kill()
        fresh_broker.start()
        now = fresh.describe(task)
        assert now["status"] == "InProgress" and now["successCount"] >= before
        wait_until("it goes on", lambda: fresh.describe(task)["successCount"] > now["successCount"], WAIT)
    all_once(fresh, task, name, count)


def test_an_object_that_was_replaced_is_not_gone_on_with(fresh_broker, fresh, request_text, name):
    task = fresh.start(f"{name}.json", template(name), [line(number, request_text) for number in range(4000)])
    some_are_done(fresh, task)
    fresh_broker.kill()
    fresh.put(f"{name}.json", b"{}\n")
    fresh_broker.start()
    done = fresh.ended(task)
    assert done["status"] == "Failed" and "not the object any more" in done["message"], done


def test_a_node_without_a_bucket_says_what_is_missing(tmp_path, name):
    alone = SkeinCluster(tmp_path / "alone", 1).start()
    try:
        start = lambda: Bulk(alone[1]).start("x.json", template(name))
        assert "registration.buckets" in refused(start, "InvalidRequestException", 400)
    finally:
        alone.stop()


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store", bucket="fleet")
    yield store
    store.stop()


@pytest.fixture
def storing(store, tmp_path):
    """Three nodes whose objects and reports are in a store."""
    cluster = SkeinCluster(tmp_path / "cluster")
    credentials = store.credentials("credentials")
    cluster.backup = lambda node: [
        "[registration]", f'reports = "s3://{store.bucket}/reports"',
        "[registration.buckets]", f'devices = "s3://{store.bucket}/input"', 'other = "s3://no-such-bucket"',
        "[registration.s3]", f'endpoint = "{store.url}"', f'credentials = "{credentials}"', "allow_http = true",
    ]
    yield cluster.start()
    cluster.stop()


def test_another_node_goes_on_with_what_is_in_a_store(storing, store, request_text, name):
    put = lambda key, content: store.put(f"input/{key}", content)
    bulks = {number: Bulk(node, put, "devices") for number, node in storing.nodes.items()}
    missing = bulks[2].start("none.json", template(name))
    assert "there is no such object" in bulks[2].ended(missing)["message"]
    elsewhere = bulks[2].start("none.json", template(name), bucket="other")
    assert bulks[2].ended(elsewhere)["status"] == "Failed"
    count = 3000
    lines = [line(number, request_text) for number in range(count)]
    task = bulks[1].start(f"{name}.json", template(name), lines)
    some_are_done(bulks[1], task)
    (working,) = [
        number for number, node in storing.nodes.items() if node.metrics().get('registration_lines_total{result="success"}')
    ]
    storing[working].kill()
    alive = next(number for number in storing.nodes if number != working)
    wait_until("the others answer", lambda: answers(bulks[alive], task), WAIT)
    all_once(bulks[alive], task, name, count)
    assert any(key.startswith(f"reports/{task}/results-") for key in store.keys())


def answers(bulk, task):
    try:
        return bulk.describe(task)
    except bulk.iot.exceptions.ServiceUnavailableException:
        return None
