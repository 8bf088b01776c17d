"""An S3-compatible store on this machine, for backups: moto's server, which checks who asks."""

import json
import ssl
import subprocess
import sys
import urllib.request

import boto3

from brokers import free_port, make_pki, wait_until

REGION = "eu-central-1"
EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}


class Store:
    def __init__(self, folder, bucket="backups", tls=False):
        folder.mkdir(parents=True)
        self.folder, self.bucket = folder, bucket
        self.ca = folder / "pki" / "ca.pem" if tls else None
        self.log = folder / "moto.log"
        port = free_port()
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{port}"
        words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        if tls:
            make_pki(self.ca.parent)
            server = str(self.ca.with_name("server"))
            words += ["-s", "-c", f"{server}.pem", "-k", f"{server}.key"]
        self.context = ssl.create_default_context(cafile=self.ca) if tls else None
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
        wait_until("the store answers", self.answers, 30)
        iam = self.client("iam", "any", "any")
        iam.create_user(UserName="skein")
        document = json.dumps(EVERYTHING)
        iam.put_user_policy(UserName="skein", PolicyName="all", PolicyDocument=document)
        key = iam.create_access_key(UserName="skein")["AccessKey"]
        self.id, self.secret = key["AccessKeyId"], key["SecretAccessKey"]
        self.s3 = self.client("s3", self.id, self.secret)
        where = {"LocationConstraint": REGION}
        self.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration=where)
        # From now on it wants to know who asks.
        self.ask("/moto-api/reset-auth", b"0")

    def answers(self):
        assert self.process.poll() is None, self.log.read_text()
        try:
            self.ask("/moto-api/")
            return True
        except OSError:
            return False

    def ask(self, path, body=None):
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "text/plain"})
        urllib.request.urlopen(request, timeout=5, context=self.context).close()

    def client(self, service, id, secret):
        return boto3.client(
            service, endpoint_url=self.url, region_name=REGION, aws_access_key_id=id,
            aws_secret_access_key=secret, verify=self.ca and str(self.ca),
        )

    def credentials(self, name, secret=None):
        """A file with the keys that open it, or with another secret."""
        file = self.folder / name
        lines = ["[default]", f"aws_access_key_id = {self.id}"]
        lines += [f"aws_secret_access_key = {secret or self.secret}"]
        file.write_text("\n".join(lines) + "\n")
        file.chmod(0o600)
        return file

    def configuration(self, credentials, bucket=None):
        """What a node is told of it."""
        return [
            "[backup]", f'url = "s3://{bucket or self.bucket}/of/skein"', "[backup.s3]",
            f'endpoint = "{self.url}"', f'region = "{REGION}"', f'credentials = "{credentials}"',
            f'ca = "{self.ca}"' if self.ca else "allow_http = true",
        ]

    def environment(self):
        """What a command is told of it."""
        return {
            "AWS_ACCESS_KEY_ID": self.id, "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": REGION, "AWS_ENDPOINT_URL": self.url,
        }

    def keys(self):
        found = self.s3.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return [it["Key"] for it in found]

    def get(self, key):
        return self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def put(self, key, content):
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=content)

    def stop(self):
        self.process.kill()
        self.process.wait()
