"""What a stack writes for its users: DIR/env, and for each principal a directory with kiln.conf, certificate, keys."""

import pathlib
import secrets
import shutil

import roles
from certificates import private
from install import run

PARTITIONS = {"partitions": 4, "work_partitions": 4, "result_partitions": 4}


def make_sign_key(path):
    """An Ed25519 key as Kiln keeps them: 32 private bytes in hex, the public ones in PATH.pub."""
    pem = path.with_suffix(".pem")
    run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", pem])
    private(path, tail(pem, []) + "\n")
    path.with_name(path.name + ".pub").write_text(tail(pem, ["-pubout"]) + "\n")
    pem.unlink()


def tail(pem, options):
    der = pem.with_suffix(".der")
    run(["openssl", "pkey", "-in", pem, "-outform", "DER", "-out", der, *options])
    text = der.read_bytes()[-32:].hex()
    der.unlink()
    return text


def public(path):
    return pathlib.Path(f"{path}.pub").read_text().strip()


class Settings:
    def __init__(self, directory, ports, endpoint, secure, lacks_limits=False, prefix="kiln"):
        self.top = pathlib.Path(directory)
        self.lacks_limits = lacks_limits
        self.ports, self.endpoint, self.secure, self.prefix = ports, endpoint, secure, prefix

    def role_dir(self, principal):
        return self.top / "roles" / principal.name

    def roots(self):
        return [self.top / "roots" / name for name in ("root-1", "root-2")]

    def make_keys(self, authority):
        (self.top / "roots").mkdir(mode=0o700, exist_ok=True)
        for root in self.roots():
            make_sign_key(root)
        for one in roles.PRINCIPALS:
            place = self.role_dir(one)
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            authority.issue(one.name, place / "tls.key", place / "tls.crt")
            shutil.copy(authority.certificate, place / "ca.crt")
            make_sign_key(place / "record.key")
            if one.role == "verifier":
                make_sign_key(place / "sign.key")
            private(place / "s3.key", f"{one.name}\n{secrets.token_hex(20)}\n")
            (place / "policy.json").write_text(roles.policy_text(self.prefix, one))

    def secrets(self):
        return {one.name: (self.role_dir(one) / "s3.key").read_text().split()[1] for one in roles.PRINCIPALS}

    def write_principals(self):
        """The list `kiln-admin` takes: NAME ROLE TENANT POOL RECORD_KEY [SIGNING_KEY], "-" for none."""
        lines = []
        for one in roles.PRINCIPALS:
            words = [one.name, one.role, one.tenant or "-", one.pool or "-", public(self.role_dir(one) / "record.key")]
            if one.role == "verifier":
                words.append(public(self.role_dir(one) / "sign.key"))
            lines.append(" ".join(words))
        (self.top / "principals").write_text("\n".join(lines) + "\n")

    def conf(self, one):
        place = self.role_dir(one)
        lines = ["[fleet]", f"brokers = 127.0.0.1:{self.ports['kafka']}", f"principal = {one.name}"]
        lines += [f"tenant = {one.tenant}"] if one.tenant else []
        lines += [f"pool = {one.pool}"] if one.pool else []
        lines += [f"sign_key = {place / 'sign.key'}"] if one.role == "verifier" else []
        lines += [f"record_key = {place / 'record.key'}",
                  "trust_roots = " + ",".join(public(root) for root in self.roots()), "trust_threshold = 2"]
        lines += [f"{name} = {count}" for name, count in PARTITIONS.items()]
        lines += ["[s3]", f"endpoint = {self.endpoint}", "region = us-east-1", f"bucket_prefix = {self.prefix}",
                  f"access_key_file = {place / 's3.key'}",
                  "[tls]", f"ca = {place / 'ca.crt'}", f"cert = {place / 'tls.crt'}", f"key = {place / 'tls.key'}"]
        lines += [f"s3_ca = {place / 'ca.crt'}"] if self.secure else []
        lines += ["[executor]", "insecure_limits = true"] if one.role == "executor" and self.lacks_limits else []
        return "\n".join(lines) + "\n"

    def write(self):
        self.write_principals()
        for one in roles.PRINCIPALS:
            private(self.role_dir(one) / "kiln.conf", self.conf(one))
        names = {"KILN_STACK": self.top, "KILN_STACK_BROKERS": f"127.0.0.1:{self.ports['kafka']}", "KILN_STACK_S3": self.endpoint,
                 "KILN_STACK_BUCKETS": self.prefix, "KILN_STACK_CA": self.top / "tls" / "ca.crt", "KILN_STACK_ROLES": self.top / "roles",
                 "KILN_STACK_ROOTS": self.top / "roots", "KILN_STACK_S3_ROOT": self.top / "s3-root",
                 "KILN_STACK_S3_DATA": self.top / "minio" / "data"}
        (self.top / "env").write_text("".join(f"{name}={value}\n" for name, value in names.items()))
