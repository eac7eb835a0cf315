// Runs the official JavaScript SDK, unmodified, against one base URL and reports what happened.
//
// The counterpart of python_sdk.py: log in once, list users page by page, then change the skills of fifty users from
// eight workers at once, without any retry, pacing or token handling of its own. stdout is one JSON object; the exit
// code is 0 if the expectation held and 1 if not. An expectation of `fail` holds if the SDK rejected at least once.
//
//     node node_sdk.mjs --base http://127.0.0.1:8787 --expect pass

import { createRequire } from 'node:module';
import { parseArgs } from 'node:util';
import genesys from 'purecloud-platform-client-v2';

const WORKERS = 8;
const USERS = 50;
const ROUNDS = 4;
const PAGE_SIZE = 25;

/** Counts calls and rejections, and remembers which changes the server confirmed. */
class Proof {
  calls = 0;
  errors = {};
  usersListed = 0;
  usersTotal = null;
  applied = {};

  /** Calls the SDK once. Resolves to its answer, or to undefined if it rejected. */
  async call(promise) {
    try {
      return (await promise) ?? {};
    } catch (error) {
      const name = label(error);
      this.errors[name] = (this.errors[name] ?? 0) + 1;
      return undefined;
    } finally {
      this.calls += 1;
    }
  }

  /** Every user, page by page, until the SDK has shown them all or rejected. */
  async listUsers(api) {
    const users = [];
    for (let page = 1; ; page += 1) {
      const listing = await this.call(api.getUsers({ pageSize: PAGE_SIZE, pageNumber: page }));
      if (!listing) break;
      this.usersTotal = listing.total;
      const entities = listing.entities ?? [];
      users.push(...entities.map((user) => user.id));
      if (page >= listing.pageCount || entities.length === 0) break;
    }
    this.usersListed = new Set(users).size;
    return users;
  }

  /** Sets one skill of one user and, if that was confirmed, remembers it. */
  async patchSkill(api, { user, skill, proficiency }) {
    const answer = await this.call(api.patchUserRoutingskillsBulk(user, [{ id: skill, proficiency }]));
    if (answer) (this.applied[user] ??= {})[skill] = proficiency;
  }

  /** What happened, for the judge: `applied` maps user to skill to proficiency, confirmed changes only. */
  report(base, seconds) {
    const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
    return {
      sdk: `node ${sdkVersion()}`,
      base,
      calls: this.calls,
      exceptions: sum(Object.values(this.errors)),
      errors: this.errors,
      users_listed: this.usersListed,
      users_total: this.usersTotal,
      patched: sum(Object.values(this.applied).map((skills) => Object.keys(skills).length)),
      seconds: Math.round(seconds * 1000) / 1000,
      applied: this.applied,
    };
  }
}

/** The SDK rejects with the parsed error body, or with an Error when no answer came. */
function label(error) {
  if (error instanceof Error) return error.code ?? error.name;
  return `${error?.status ?? 'no status'} ${error?.code ?? error?.error ?? 'no code'}`;
}

function sdkVersion() {
  const require = createRequire(import.meta.url);
  return require('purecloud-platform-client-v2/package.json').version;
}

/** The program under proof. */
async function work(proof, base, clientId, clientSecret) {
  const { hostname, port, protocol } = new URL(base);
  const client = genesys.ApiClient.instance;
  client.setGateway({ host: hostname, port: Number(port), protocol: protocol.replace(':', '') });
  if (!(await proof.call(client.loginClientCredentialsGrant(clientId, clientSecret)))) return;

  const usersApi = new genesys.UsersApi();
  const routingApi = new genesys.RoutingApi();
  const users = (await proof.listUsers(usersApi)).slice(0, USERS);
  const listing = await proof.call(routingApi.getRoutingSkills({ pageSize: ROUNDS, pageNumber: 1 }));
  const skills = (listing?.entities ?? []).map((skill) => skill.id);
  // Every change names its own skill, so the end result is the same in whatever order the changes arrive.
  const changes = skills.flatMap((skill, turn) =>
    users.map((user, number) => ({ user, skill, proficiency: 1 + ((7 * number + 3 * turn) % 5) })),
  );
  const worker = async () => {
    for (let change = changes.shift(); change; change = changes.shift()) {
      await proof.patchSkill(usersApi, change);
    }
  };
  await Promise.all(Array.from({ length: WORKERS }, worker));
}

const { values: options } = parseArgs({
  options: {
    base: { type: 'string' },
    expect: { type: 'string' },
    'client-id': { type: 'string', default: 'demo-client' },
    'client-secret': { type: 'string', default: 'demo-secret' },
  },
});
if (!options.base || !['pass', 'fail'].includes(options.expect)) {
  console.error('usage: node node_sdk.mjs --base URL --expect pass|fail');
  process.exit(2);
}

const proof = new Proof();
const started = performance.now();
await work(proof, options.base, options['client-id'], options['client-secret']);
const report = proof.report(options.base, (performance.now() - started) / 1000);
console.log(JSON.stringify(report));

const complete = report.users_listed === report.users_total && report.patched === USERS * ROUNDS;
const passed = complete && report.exceptions === 0;
process.exitCode = (options.expect === 'pass' ? passed : report.exceptions > 0) ? 0 : 1;
