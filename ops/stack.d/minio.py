"""One MinIO server, its users with their policies, and the three buckets."""

import base64
import hashlib
import io
import json
import pathlib
import zipfile

import process
import roles
from s3 import Client

SPACES = ("quarantine", "inputs", "vault")


class Minio:
    name = "minio"

    def __init__(self, directory, ports, program, tls, secure):
        self.directory = pathlib.Path(directory) / "minio"
        self.top, self.ports, self.program = pathlib.Path(directory), ports, program
        self.tls, self.secure = pathlib.Path(tls), secure
        self.server = process.Server(directory, self.name)

    @property
    def endpoint(self):
        return f"{'https' if self.secure else 'http'}://127.0.0.1:{self.ports['s3']}"

    def root(self):
        access, secret = (self.top / "s3-root").read_text().split()
        return Client(self.endpoint, access, secret, ca=self.tls / "ca.crt" if self.secure else None)

    def start(self):
        """Returns False when the port turned out to be taken."""
        certs = self.directory / "certs"
        certs.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.directory / "data").mkdir(exist_ok=True)
        if self.secure:
            for here, there in (("server.crt", "public.crt"), ("server.key", "private.key")):
                (certs / there).write_bytes((self.tls / here).read_bytes())
        access, secret = (self.top / "s3-root").read_text().split()
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.directory), "MINIO_ROOT_USER": access, "MINIO_ROOT_PASSWORD": secret,
                       "MINIO_BROWSER": "off", "MINIO_UPDATE": "off", "MINIO_SCANNER_SPEED": "slowest"}
        command = [str(self.program), "server", "--quiet", "--certs-dir", str(certs), "--address", f"127.0.0.1:{self.ports['s3']}",
                   str(self.directory / "data")]
        begin = self.server.start(command, environment)
        process.wait_for(lambda: self.healthy() is None or self.server.pid() is None, 60, f"MinIO answers; see {self.server.log}")
        if self.server.pid() is None:
            said = self.server.printed(begin)
            self.server.stop()
            if "already in use" in said:
                return False
            raise RuntimeError(f"MinIO ended:\n{said[-4000:]}")
        return True

    def healthy(self):
        if self.server.pid() is None:
            return "not running"
        try:
            answer = Client(self.endpoint, "-", "-", ca=self.tls / "ca.crt" if self.secure else None, timeout=5).request(
                "GET", "/minio/health/ready")
        except OSError as problem:
            return str(problem)
        return None if answer.status == 200 else f"answers {answer.status}"

    def make_users(self, prefix, secrets):
        """All users and policies in one request: what `mc admin cluster iam import` sends. secrets: principal name -> secret key."""
        assets = {"policies": {one.name: roles.policy(prefix, one) for one in roles.PRINCIPALS},
                  "users": {name: {"secretKey": secret, "status": "enabled"} for name, secret in secrets.items()},
                  "user_mappings": {one.name: {"version": 1, "policy": one.name} for one in roles.PRINCIPALS}}
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for name, value in assets.items():
                archive.writestr(f"iam-assets/{name}.json", json.dumps(value))
        answer = self.root().must("PUT", "/minio/admin/v3/import-iam-v2", body=packed.getvalue())
        failed = {kind: what for kind, what in json.loads(answer.body).get("failed", {}).items() if what}
        if failed:
            raise RuntimeError(f"MinIO refused users: {failed}")

    def make_buckets(self, prefix, vault_days, inputs_days):
        root = self.root()
        for space in SPACES:
            days = {"vault": vault_days, "inputs": inputs_days}.get(space)
            bucket = f"/{prefix}-{space}"
            root.must("PUT", bucket, headers={"x-amz-bucket-object-lock-enabled": "true"} if days else {}, accept=(200, 409))
            if days:
                lock = ("<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>"
                        f"<Mode>COMPLIANCE</Mode><Days>{days}</Days></DefaultRetention></Rule></ObjectLockConfiguration>")
                root.must("PUT", bucket, {"object-lock": ""}, headers=checked(lock), body=lock.encode())
            else:
                rule = ("<LifecycleConfiguration><Rule><ID>expire</ID><Status>Enabled</Status><Filter><Prefix></Prefix></Filter>"
                        "<Expiration><Days>3</Days></Expiration></Rule></LifecycleConfiguration>")
                root.must("PUT", bucket, {"lifecycle": ""}, headers=checked(rule), body=rule.encode())


def checked(text):
    return {"content-md5": base64.b64encode(hashlib.md5(text.encode()).digest()).decode()}
