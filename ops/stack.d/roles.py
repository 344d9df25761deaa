"""Who is in the stack's fleet, and what the storage lets each role do. Kafka's side of the same table is in ops/admin/."""

import collections
import json

Principal = collections.namedtuple("Principal", "name role tenant pool")

PRINCIPALS = (
    Principal("agent-1", "agent", "red", ""),
    Principal("agent-2", "agent", "red", ""),
    Principal("agent-3", "agent", "blue", ""),
    Principal("verifier-1", "verifier", "", ""),
    Principal("verifier-2", "verifier", "", ""),
    Principal("executor-1", "executor", "", "north"),
    Principal("executor-2", "executor", "", "south"),
    Principal("executor-3", "executor", "", "west"),
    Principal("reader", "reader", "", ""),
    Principal("operator", "operator", "", ""),
)

READ = ["s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectRetention"]
LIST = ["s3:ListBucket", "s3:ListBucketVersions", "s3:GetBucketLocation"]
LOOK = ["s3:GetBucketVersioning", "s3:GetBucketObjectLockConfiguration", "s3:GetLifecycleConfiguration"]
UNDO = ["s3:DeleteObject", "s3:DeleteObjectVersion", "s3:BypassGovernanceRetention", "s3:PutObjectLegalHold", "s3:ForceDeleteBucket",
        "s3:DeleteBucket", "s3:PutBucketVersioning", "s3:PutBucketObjectLockConfiguration", "s3:PutLifecycleConfiguration",
        "s3:PutBucketPolicy"]


def statement(effect, actions, *resources, condition=None):
    made = {"Effect": effect, "Action": actions, "Resource": [f"arn:aws:s3:::{resource}" for resource in resources]}
    if condition:
        made["Condition"] = condition
    return made


def statements(prefix, principal):
    quarantine, inputs, vault = (f"{prefix}-{space}" for space in ("quarantine", "inputs", "vault"))
    locked = [inputs, f"{inputs}/*", vault, f"{vault}/*"]
    no_undo = statement("Deny", UNDO, *locked)
    # A writer that may name the version of its PUT could replace one in place where the server knows that.
    no_chosen_version = statement("Deny", ["s3:PutObject"], f"{inputs}/*", f"{vault}/*",
                                  condition={"StringLike": {"s3:versionid": "?*"}})
    if principal.role == "agent":
        mine = f"{quarantine}/in/{principal.tenant}/{principal.name}/*"
        hints = f"{quarantine}/in/{principal.tenant}/hints/*"  # what builds of the tenant used: unsigned, checked as hostile input
        scopes = [f"{vault}/{kind}/{scope}/*" for kind in ("ac", "cas") for scope in ("public", principal.tenant)]
        return [statement("Allow", READ, *scopes, f"{vault}/trust/*", f"{vault}/toolchain/*"),
                statement("Allow", ["s3:PutObject", "s3:DeleteObject"], mine),
                statement("Allow", ["s3:GetObject", "s3:PutObject"], hints), no_undo]
    if principal.role == "executor":
        return [statement("Allow", READ, f"{inputs}/*", f"{vault}/cas/*", f"{vault}/trust/*", f"{vault}/toolchain/*"),
                statement("Allow", ["s3:PutObject"], f"{quarantine}/out/{principal.name}/*"), no_undo]
    if principal.role == "verifier":
        return [statement("Allow", READ + ["s3:DeleteObject"], f"{quarantine}/*"),
                statement("Allow", LIST + LOOK, quarantine, inputs, vault),
                statement("Allow", READ + ["s3:PutObject", "s3:PutObjectRetention"], f"{inputs}/*", f"{vault}/*"),
                statement("Deny", ["s3:PutObject", "s3:PutObjectRetention"], f"{vault}/trust/*", f"{vault}/toolchain/*"),
                no_undo, no_chosen_version]
    if principal.role == "reader":
        return [statement("Allow", READ, f"{inputs}/*", f"{vault}/*"), statement("Allow", LIST + LOOK, inputs, vault), no_undo]
    if principal.role == "operator":
        return [statement("Allow", LIST + LOOK + ["s3:CreateBucket", "s3:PutBucketObjectLockConfiguration", "s3:PutBucketVersioning",
                                                  "s3:PutLifecycleConfiguration"], quarantine, inputs, vault),
                statement("Allow", READ + ["s3:PutObject", "s3:PutObjectRetention"], f"{inputs}/*", f"{vault}/*"),
                statement("Deny", ["s3:DeleteObject", "s3:DeleteObjectVersion", "s3:BypassGovernanceRetention", "s3:ForceDeleteBucket",
                                   "s3:DeleteBucket", "s3:PutBucketPolicy"], *locked), no_chosen_version]
    raise ValueError(principal.role)


def policy(prefix, principal):
    return {"Version": "2012-10-17", "Statement": statements(prefix, principal)}


def policy_text(prefix, principal):
    return json.dumps(policy(prefix, principal), indent=1) + "\n"
