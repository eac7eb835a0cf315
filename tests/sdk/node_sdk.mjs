// Runs the official JavaScript SDK, unmodified, against one base URL and reports what happened.
//
// The counterpart of python_sdk.py, with the same two scenes: `skills` logs in once, lists users page by page, then
// changes the skills of fifty users from eight workers at once, without any retry, pacing or token handling of its own;
// `create` makes one user, against a server that loses its answer. stdout is one JSON object; the exit code is 0 if the
// expectation held and 1 if not. An expectation of `fail` holds if the SDK rejected at least once.
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

/** Logs in; the SDK keeps the token. Resolves to whether that worked. */
async function login(proof, base, clientId, clientSecret) {
  const { hostname, port, protocol } = new URL(base);
  const client = genesys.ApiClient.instance;
  client.setGateway({ host: hostname, port: Number(port), protocol: protocol.replace(':', '') });
  return Boolean(await proof.call(client.loginClientCredentialsGrant(clientId, clientSecret)));
}

/** The scene `skills`. Resolves to whether everything was listed and confirmed. */
async function changeSkills(proof) {
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
  const confirmed = Object.values(proof.applied).reduce((sum, skills) => sum + Object.keys(skills).length, 0);
  return proof.usersListed === proof.usersTotal && confirmed === USERS * ROUNDS;
}

/** The scene `create`. Resolves to whether the user was confirmed. */
async function createUser(proof) {
  const user = { name: 'Ada Example', email: 'ada@example.com' };
  return Boolean(await proof.call(new genesys.UsersApi().postUsers(user)));
}

const SCENES = { skills: changeSkills, create: createUser };

const { values: options } = parseArgs({
  options: {
    base: { type: 'string' },
    expect: { type: 'string' },
    scene: { type: 'string', default: 'skills' },
    'client-id': { type: 'string', default: 'demo-client' },
    'client-secret': { type: 'string', default: 'demo-secret' },
  },
});
const scene = SCENES[options.scene];
if (!options.base || !['pass', 'fail'].includes(options.expect) || !scene) {
  console.error('usage: node node_sdk.mjs --base URL --expect pass|fail [--scene skills|create]');
  process.exit(2);
}

const proof = new Proof();
const started = performance.now();
const loggedIn = await login(proof, options.base, options['client-id'], options['client-secret']);
const complete = loggedIn && (await scene(proof));
const report = proof.report(options.base, (performance.now() - started) / 1000);
console.log(JSON.stringify(report));

const passed = complete && report.exceptions === 0;
process.exitCode = (options.expect === 'pass' ? passed : report.exceptions > 0) ? 0 : 1;
