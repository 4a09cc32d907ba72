"""The policies that docs/stores.md gives let a party do what it does, and nothing to another party's objects."""

import fnmatch
import json
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "stores.md").read_text(encoding="utf-8")
S3, GCS = (json.loads(text) for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))
(AZURE,) = re.findall(r"```\n(\(\n.*?)```", PAGE, re.DOTALL)
ME, OTHER = "micu@north.example", "ada@west.example"
NEARLY_ME = ["micu@north.example.evil", "micu@north.exampl", "x/micu@north.example"]


def allows_s3(action, resource, *, username, prefix=""):
    """What AWS says: one statement that allows it, and none that denies it."""
    verdict = False
    for statement in S3["Statement"]:
        actions, resources = (
            [value] if isinstance(value, str) else value for value in (statement["Action"], statement["Resource"])
        )
        filled = [pattern.replace("${aws:username}", username) for pattern in resources]
        if not any(fnmatch.fnmatchcase(action, pattern) for pattern in actions):
            continue
        if not any(fnmatch.fnmatchcase(resource, pattern) for pattern in filled):
            continue
        for operator, wanted in statement.get("Condition", {}).items():
            assert operator == "StringLike"
            assert set(wanted) == {"s3:prefix"}
            if not fnmatch.fnmatchcase(prefix, wanted["s3:prefix"]):
                break
        else:
            if statement["Effect"] == "Deny":
                return False
            verdict = True
    return verdict


def allows_gcs(permission, name, *, account):
    """What Google says, of the two roles that the policy uses."""
    read = {"storage.objects.get", "storage.objects.list"}
    roles = {
        "roles/storage.objectViewer": read,
        "roles/storage.objectUser": read
        | {"storage.objects.create", "storage.objects.delete", "storage.objects.update"},
    }
    for binding in GCS["bindings"]:
        if permission in roles[binding["role"]] and f"serviceAccount:{account}" in binding["members"]:
            if "condition" not in binding:
                return True
            (start,) = re.fullmatch(
                r"resource\.name\.startsWith\('(.*)'\)", binding["condition"]["expression"]
            ).groups()
            if f"projects/_/buckets/fedpriv/objects/{name}".startswith(start):
                return True
    return False


@pytest.mark.parametrize("action", ["s3:PutObject", "s3:DeleteObject"])
def test_s3_writing_is_below_ones_own_prefix(action):
    assert allows_s3(action, f"arn:aws:s3:::fedpriv/study/{ME}/to/{OTHER}/inbox/1", username=ME)
    for name in (OTHER, *NEARLY_ME):
        assert not allows_s3(action, f"arn:aws:s3:::fedpriv/study/{name}/to/{ME}/inbox/1", username=ME)
    assert not allows_s3(action, f"arn:aws:s3:::fedpriv/{ME}/x", username=ME)
    assert not allows_s3(action, f"arn:aws:s3:::other/study/{ME}/x", username=ME)


def test_s3_all_of_the_study_is_read_and_nothing_else():
    for name in (ME, OTHER):
        assert allows_s3("s3:GetObject", f"arn:aws:s3:::fedpriv/study/{name}/version.json", username=ME)
    assert not allows_s3("s3:GetObject", "arn:aws:s3:::fedpriv/other/x", username=ME)
    for prefix in ("study/", f"study/{OTHER}/to/{ME}/inbox/"):
        assert allows_s3("s3:ListBucket", "arn:aws:s3:::fedpriv", username=ME, prefix=prefix)
    for prefix in ("", "other/", "study2/"):
        assert not allows_s3("s3:ListBucket", "arn:aws:s3:::fedpriv", username=ME, prefix=prefix)


@pytest.mark.parametrize(
    "action", ["s3:PutBucketPolicy", "s3:DeleteBucket", "s3:PutObjectAcl", "s3:GetBucketPolicy", "iam:CreateUser"]
)
def test_s3_nothing_else_is_allowed(action):
    for resource in ("arn:aws:s3:::fedpriv", f"arn:aws:s3:::fedpriv/study/{ME}/x"):
        assert not allows_s3(action, resource, username=ME, prefix="study/")


@pytest.mark.parametrize("permission", ["storage.objects.create", "storage.objects.delete", "storage.objects.update"])
def test_google_writing_is_below_ones_own_prefix(permission):
    account = "micu@hospital-north.iam.gserviceaccount.com"
    assert allows_gcs(permission, f"study/{ME}/to/{OTHER}/inbox/1", account=account)
    for name in (OTHER, *NEARLY_ME):
        assert not allows_gcs(permission, f"study/{name}/x", account=account)
    assert allows_gcs("storage.objects.get", f"study/{OTHER}/version.json", account=account)
    assert allows_gcs("storage.objects.list", "", account=account)
    assert not allows_gcs("storage.objects.get", f"study/{ME}/x", account="eve@elsewhere.iam.gserviceaccount.com")


def test_azure_every_action_that_changes_a_blob_is_bound_to_the_prefix():
    actions = set(
        re.findall(
            r"!\(ActionMatches\{'Microsoft\.Storage/storageAccounts/blobServices/containers/blobs/(.*?)'\}\)", AZURE
        )
    )
    assert actions == {"write", "add/action", "move/action", "delete"}
    (prefix,) = re.findall(r"blobs:path\]\s+StringStartsWith '(.*?)'", AZURE)
    assert prefix == f"study/{ME}/"
    assert AZURE.count("(") == AZURE.count(")")
