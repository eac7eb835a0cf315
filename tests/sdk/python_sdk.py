"""Runs the official Python SDK, unmodified, against one base URL and reports what happened.

The scene `skills` is what an integration really does: log in once, list users page by page, then change the skills of
fifty users from eight threads. It has no retry, no pacing and no token handling of its own, because the question is
what the SDK sees: through the gateway nothing may go wrong; straight at a server that throttles and expires tokens,
the SDK raises. The scene `create` makes one user, against a server that loses its answer: does the SDK send it again?

    python python_sdk.py --base http://127.0.0.1:8787 --expect pass

stdout is one JSON object (see `Proof.report`); the exit code is 0 if the expectation held and 1 if not. An
expectation of `fail` holds if the SDK raised at least once.
"""

import argparse
import json
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import PureCloudPlatformClientV2 as genesys
from PureCloudPlatformClientV2.rest import ApiException

THREADS = 8
USERS = 50
ROUNDS = 4
PAGE_SIZE = 25


class Proof:
    """Counts calls and exceptions, and remembers which changes the server confirmed."""

    def __init__(self, base):
        self.base = base
        self.calls = 0
        self.errors = Counter()
        self.users_listed = 0
        self.users_total = None
        self.applied = {}
        self._lock = threading.Lock()

    def call(self, function, *args, **kwargs):
        """Calls the SDK once. Returns its answer, or None if it raised."""
        try:
            answer = function(*args, **kwargs)
        except Exception as error:  # whatever the SDK lets out is a finding
            with self._lock:
                self.calls += 1
                self.errors[label(error)] += 1
            return None
        with self._lock:
            self.calls += 1
        return answer

    def login(self, client_id, client_secret):
        """A client that is logged in, or None if that failed."""
        genesys.configuration.host = self.base  # before ApiClient(): login and API share this origin
        return self.call(genesys.api_client.ApiClient().get_client_credentials_token, client_id, client_secret)

    def list_users(self, api):
        """Every user, page by page, until the SDK has shown them all or raised."""
        users, page = [], 1
        while True:
            listing = self.call(api.get_users, page_size=PAGE_SIZE, page_number=page)
            if listing is None:
                break
            self.users_total = listing.total
            users.extend(user.id for user in listing.entities or [])
            if page >= listing.page_count or not listing.entities:
                break
            page += 1
        self.users_listed = len(set(users))
        return users

    def patch_skill(self, api, user_id, skill_id, proficiency):
        """Sets one skill of one user and, if that was confirmed, remembers it."""
        skill = genesys.UserRoutingSkillPost()
        skill.id = skill_id
        skill.proficiency = proficiency
        if self.call(api.patch_user_routingskills_bulk, user_id, [skill]) is not None:
            with self._lock:
                self.applied.setdefault(user_id, {})[skill_id] = proficiency

    def report(self, seconds):
        """What happened, for the judge: `applied` maps user to skill to proficiency, confirmed changes only."""
        return {
            "sdk": "python " + version("purecloudplatformclientv2"),
            "base": self.base,
            "calls": self.calls,
            "exceptions": sum(self.errors.values()),
            "errors": dict(self.errors.most_common()),
            "users_listed": self.users_listed,
            "users_total": self.users_total,
            "patched": sum(len(skills) for skills in self.applied.values()),
            "seconds": round(seconds, 3),
            "applied": self.applied,
        }


def label(error):
    """A short name of an exception: `401 bad.credentials`, or the type if the SDK let something foreign out."""
    if not isinstance(error, ApiException):
        return type(error).__name__
    try:
        code = json.loads(error.body).get("code") or "no code"
    except (TypeError, ValueError, AttributeError):
        code = "no body"
    return f"{error.status} {code}"


def change_skills(proof, client):
    """The scene `skills`. Returns whether everything was listed and confirmed."""
    users_api, routing_api = genesys.UsersApi(client), genesys.RoutingApi(client)
    users = proof.list_users(users_api)[:USERS]
    listing = proof.call(routing_api.get_routing_skills, page_size=ROUNDS, page_number=1)
    skills = [skill.id for skill in listing.entities] if listing else []
    # Every change names its own skill, so the end result is the same in whatever order the changes arrive.
    changes = [
        (user, skill, float(1 + (7 * number + 3 * turn) % 5))
        for turn, skill in enumerate(skills)
        for number, user in enumerate(users)
    ]
    with ThreadPoolExecutor(max_workers=THREADS) as pool:
        for change in changes:
            pool.submit(proof.patch_skill, users_api, *change)
    return proof.users_listed == proof.users_total and sum(map(len, proof.applied.values())) == USERS * ROUNDS


def create_user(proof, client):
    """The scene `create`. Returns whether the user was confirmed."""
    user = genesys.CreateUser()
    user.name, user.email = "Ada Example", "ada@example.com"
    return proof.call(genesys.UsersApi(client).post_users, user) is not None


SCENES = {"skills": change_skills, "create": create_user}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", required=True, help="origin of the gateway or the server")
    parser.add_argument("--expect", choices=["pass", "fail"], required=True)
    parser.add_argument("--scene", choices=SCENES, default="skills")
    parser.add_argument("--client-id", default="demo-client")
    parser.add_argument("--client-secret", default="demo-secret")
    options = parser.parse_args()

    proof = Proof(options.base.rstrip("/"))
    started = time.monotonic()
    client = proof.login(options.client_id, options.client_secret)
    complete = client is not None and SCENES[options.scene](proof, client)
    report = proof.report(time.monotonic() - started)
    print(json.dumps(report))

    if options.expect == "fail":
        return 0 if report["exceptions"] else 1
    return 0 if complete and not report["exceptions"] else 1


if __name__ == "__main__":
    sys.exit(main())
