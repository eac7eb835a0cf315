"""Gives many agents a skill, through a Tidegate gateway.

Start a gateway (`tidegate serve`), then:

    pip install requests
    export GENESYSCLOUD_OAUTHCLIENT_ID=... GENESYSCLOUD_OAUTHCLIENT_SECRET=...
    python patch_skills.py --base http://127.0.0.1:8787 --skill Spanish --proficiency 4 --users 25

What is missing here is the point: no sleep between calls, no reading of rate-limit headers, no token renewal, no
idempotency keys. The gateway does all that. What is left is one rule: if the gateway itself answers 429, it has not
sent the call (it could not fit it into its longest wait), so waiting for `Retry-After` and asking again is safe, for
writes too. urllib3 can do that by itself; see `session()`.

stdout is CSV, one line per agent; everything else goes to stderr.
"""

import argparse
import csv
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry


def session(base, client_id, client_secret, workers):
    """Logs in once. The gateway keeps the login alive, however long this program runs."""
    # Only a 429 is repeated. A broken connection is not: the write may have happened, and only the gateway knows.
    retry = Retry(total=10, connect=0, read=0, other=0, status=10, status_forcelist=[429], allowed_methods=None)
    http = requests.Session()
    http.mount(base, HTTPAdapter(pool_maxsize=workers, max_retries=retry))
    login = http.post(
        f"{base}/oauth/token", auth=(client_id, client_secret), data={"grant_type": "client_credentials"}, timeout=30
    )
    login.raise_for_status()
    http.headers["Authorization"] = f"Bearer {login.json()['access_token']}"
    return http


def pages(http, base, path, **query):
    """Every entity of a paged listing."""
    number = 1
    while True:
        answer = http.get(f"{base}{path}", params={**query, "pageSize": 100, "pageNumber": number}, timeout=30)
        answer.raise_for_status()
        listing = answer.json()
        yield from listing["entities"]
        if number >= listing["pageCount"]:
            return
        number += 1


def find_skill(http, base, name):
    """The id of the skill with exactly this name."""
    for skill in pages(http, base, "/api/v2/routing/skills", name=name):
        if skill["name"] == name:
            return skill["id"]
    sys.exit(f"there is no skill named {name!r}")


def give_skill(http, base, user_id, skill_id, proficiency):
    """Adds one skill to one agent; the agent's other skills stay. Returns ok, unknown or failed."""
    url = f"{base}/api/v2/users/{user_id}/routingskills/bulk"
    answer = http.patch(url, json=[{"id": skill_id, "proficiency": proficiency}], timeout=60)
    if answer.headers.get("Tidegate-Outcome") == "unknown":
        return "unknown"  # sent, but nobody can tell whether it was done: look before you repeat it
    return "ok" if answer.ok else "failed"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="http://127.0.0.1:8787", help="where the gateway listens")
    parser.add_argument("--skill", default="Support")
    parser.add_argument("--proficiency", type=float, default=3.0, help="0 to 5")
    parser.add_argument("--users", type=int, default=25, help="how many agents")
    parser.add_argument("--workers", type=int, default=8, help="calls at the same time")
    options = parser.parse_args()
    base = options.base.rstrip("/")

    http = session(
        base,
        os.environ.get("GENESYSCLOUD_OAUTHCLIENT_ID", "demo-client"),
        os.environ.get("GENESYSCLOUD_OAUTHCLIENT_SECRET", "demo-secret"),
        options.workers,
    )
    skill_id = find_skill(http, base, options.skill)
    users = [user["id"] for _, user in zip(range(options.users), pages(http, base, "/api/v2/users"))]

    def job(user_id):
        return user_id, give_skill(http, base, user_id, skill_id, options.proficiency)

    table = csv.writer(sys.stdout)
    table.writerow(["user_id", "skill_id", "proficiency", "status"])
    done = 0
    with ThreadPoolExecutor(max_workers=options.workers) as pool:
        for user_id, status in pool.map(job, users):
            table.writerow([user_id, skill_id, options.proficiency, status])
            done += status == "ok"
    print(f"{done} of {len(users)} agents have {options.skill} {options.proficiency:g}", file=sys.stderr)
    return 0 if done == len(users) else 1


if __name__ == "__main__":
    sys.exit(main())
