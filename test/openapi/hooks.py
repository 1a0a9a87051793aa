"""What a document cannot say: proofs that are fresh, dates that lie ahead, and what the run itself lives on."""

import itertools
import json
import os
import urllib.request
from datetime import datetime, timedelta, timezone

import schemathesis

# Operators and workloads that the run needs until its end: they are not ended under the names that answers tell.
KEPT = json.loads(os.environ["STINT_KEPT"])
POLICIES = json.loads(os.environ["STINT_POLICIES"])
SCOPES = itertools.cycle(["tickets:read", "tickets:read tickets:comment", "tickets:purge"])
# In days from now.
DATES = {"review_at": 30, "expires_at": 7, "before": -1}


def make(what):
    """A fresh assertion or key set: the test that started this run makes them."""
    with urllib.request.urlopen(os.environ["STINT_MAKER"] + what) as response:
        return response.read().decode()


def leave_alone(values, name, kept):
    if isinstance(values, dict) and isinstance(values.get(name), str) and values[name] in kept:
        values[name] = "nobody"


@schemathesis.hook
def before_call(context, case, kwargs):
    path = case.operation.path
    for kind, kept in KEPT.items():
        if path.startswith(f"/v1/{kind}/"):
            leave_alone(case.path_parameters, "name", kept)
    body = case.body
    if not isinstance(body, dict):
        return
    leave_alone(body, "workload", KEPT["workloads"])
    # An empty set is a good one, under which nobody gets a token any more.
    if path == "/v1/policy" and body.get("files") == {}:
        body["files"] = POLICIES
    if case.meta is None or case.meta.generation.mode.value != "positive":
        return
    if isinstance(body.get("client_assertion"), str):
        body["client_assertion"] = make("assertion")
    if path == "/oauth2/token" and isinstance(body.get("scope"), str):
        body["scope"] = next(SCOPES)
    if isinstance(body.get("jwks"), dict):
        body["jwks"] = json.loads(make("jwks"))
    for name, days in DATES.items():
        if isinstance(body.get(name), str):
            body[name] = (datetime.now(timezone.utc) + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")
