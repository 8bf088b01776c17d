"""What the control plane knows of the fleet: things, certificates, policies. Plain boto3."""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

TYPE = "freezer-truck"
ME = "${iot:Connection.Thing.ThingName}"


@dataclass
class Identity:
    """Who connects, and with which files."""

    name: str
    certificate: Path
    key: Path


class Fleet:
    def __init__(self, iot, folder):
        self.iot, self.folder = iot, folder
        self.undo = []
        # Policies name the account and the region that the things are in.
        with contextlib.suppress(iot.exceptions.ResourceAlreadyExistsException):
            iot.create_thing_type(thingTypeName=TYPE)
        arn = iot.describe_thing_type(thingTypeName=TYPE)["thingTypeArn"]
        self.prefix = arn.partition(":thingtype/")[0]
        self.policy("freezer-truck", self.for_trucks())
        self.policy("freezer-dispatcher", self.for_dispatcher())

    def for_trucks(self):
        """One policy for all trucks: each may speak as itself and about itself."""
        shadow = f"$aws/things/{ME}/shadow"
        return [
            ("iot:Connect", [f"client/{ME}"]),
            (["iot:Publish", "iot:RetainPublish"], [f"topic/trucks/{ME}/status"]),
            ("iot:Publish", [f"topic/trucks/{ME}/telemetry", f"topic/{shadow}/update", f"topic/{shadow}/get"]),
            ("iot:Subscribe", [f"topicfilter/{shadow}/*"]),
            ("iot:Receive", [f"topic/{shadow}/*"]),
        ]

    def for_dispatcher(self):
        topics = ["trucks/+/telemetry", "trucks/+/status", "$aws/things/+/shadow/update/documents"]
        return [
            ("iot:Connect", ["client/dispatcher"]),
            ("iot:Subscribe", [f"topicfilter/{topic}" for topic in topics]),
            ("iot:Receive", [f"topic/{topic.replace('+', '*')}" for topic in topics]),
            ("iot:Publish", ["topic/$aws/things/*/shadow/update"]),
        ]

    def policy(self, name, statements):
        statements = [
            {"Effect": "Allow", "Action": action, "Resource": [f"{self.prefix}:{place}" for place in places]}
            for action, places in statements
        ]
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        try:
            self.iot.create_policy(policyName=name, policyDocument=document)
            self.undo.append(lambda: self.iot.delete_policy(policyName=name))
        except self.iot.exceptions.ResourceAlreadyExistsException:
            pass

    def truck(self, name):
        """A truck's thing, certificate and policy."""
        self.iot.create_thing(thingName=name, thingTypeName=TYPE)
        self.undo.append(lambda: self.iot.delete_thing(thingName=name))
        identity, principal = self.identity(name, "freezer-truck")
        self.iot.attach_thing_principal(thingName=name, principal=principal)
        self.undo.append(lambda: self.iot.detach_thing_principal(thingName=name, principal=principal))
        return identity

    def dispatcher(self):
        return self.identity("dispatcher", "freezer-dispatcher")[0]

    def identity(self, name, policy):
        made = self.iot.create_keys_and_certificate(setAsActive=True)
        identity = Identity(name, self.folder / f"{name}.pem", self.folder / f"{name}.key")
        identity.certificate.write_text(made["certificatePem"])
        identity.key.touch(mode=0o600)
        identity.key.write_text(made["keyPair"]["PrivateKey"])
        principal, id = made["certificateArn"], made["certificateId"]
        self.iot.attach_policy(policyName=policy, target=principal)

        def undo():
            self.iot.detach_policy(policyName=policy, target=principal)
            self.iot.update_certificate(certificateId=id, newStatus="INACTIVE")
            self.iot.delete_certificate(certificateId=id)

        self.undo.append(undo)
        return identity, principal

    def scrap(self):
        """Takes back what was made, last first."""
        for undo in reversed(self.undo):
            undo()
