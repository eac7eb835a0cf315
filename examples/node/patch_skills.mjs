// Gives many agents a skill, through a Tidegate gateway. Needs Node 18 or newer and no packages.
//
// Start a gateway (`tidegate serve`), then:
//
//     export GENESYSCLOUD_OAUTHCLIENT_ID=... GENESYSCLOUD_OAUTHCLIENT_SECRET=...
//     node patch_skills.mjs --base http://127.0.0.1:8787 --skill Spanish --proficiency 4 --users 25
//
// What is missing here is the point: no sleep between calls, no reading of rate-limit headers, no token renewal, no
// idempotency keys. The gateway does all that. What is left is one rule: if the gateway itself answers 429, it has not
// sent the call (it could not fit it into its longest wait), so waiting for `Retry-After` and asking again is safe, for
// writes too; see `call`.
//
// stdout is CSV, one line per agent; everything else goes to stderr.

import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';

const { values: options } = parseArgs({
  options: {
    base: { type: 'string', default: 'http://127.0.0.1:8787' },
    skill: { type: 'string', default: 'Support' },
    proficiency: { type: 'string', default: '3' },
    users: { type: 'string', default: '25' },
    workers: { type: 'string', default: '8' },
  },
});
const base = options.base.replace(/\/$/, '');
const proficiency = Number(options.proficiency);
let token;

/** Sends one call. Only a 429 is repeated: a broken connection is not, because the write may have happened. */
async function call(method, path, body) {
  for (let tries = 1; ; tries += 1) {
    const response = await fetch(base + path, {
      method,
      headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' },
      body: body && JSON.stringify(body),
    });
    if (response.status !== 429 || tries === 10) return response;
    await response.arrayBuffer(); // read it, so that the connection can be used again
    await sleep(1000 * Number(response.headers.get('retry-after') ?? 1));
  }
}

/** Logs in once. The gateway keeps the login alive, however long this program runs. */
async function login() {
  const id = process.env.GENESYSCLOUD_OAUTHCLIENT_ID ?? 'demo-client';
  const secret = process.env.GENESYSCLOUD_OAUTHCLIENT_SECRET ?? 'demo-secret';
  const response = await fetch(`${base}/oauth/token`, {
    method: 'POST',
    headers: { Authorization: `Basic ${Buffer.from(`${id}:${secret}`).toString('base64')}` },
    body: new URLSearchParams({ grant_type: 'client_credentials' }),
  });
  if (!response.ok) throw new Error(`login failed: ${response.status} ${await response.text()}`);
  return (await response.json()).access_token;
}

/** Every entity of a paged listing. */
async function* pages(path, query = {}) {
  for (let number = 1; ; number += 1) {
    const search = new URLSearchParams({ ...query, pageSize: 100, pageNumber: number });
    const response = await call('GET', `${path}?${search}`);
    if (!response.ok) throw new Error(`GET ${path} failed: ${response.status} ${await response.text()}`);
    const listing = await response.json();
    yield* listing.entities;
    if (number >= listing.pageCount) return;
  }
}

/** The id of the skill with exactly this name. */
async function findSkill(name) {
  for await (const skill of pages('/api/v2/routing/skills', { name })) {
    if (skill.name === name) return skill.id;
  }
  throw new Error(`there is no skill named ${JSON.stringify(name)}`);
}

/** The first agents. */
async function firstUsers(count) {
  const users = [];
  for await (const user of pages('/api/v2/users')) {
    if (users.length === count) break;
    users.push(user.id);
  }
  return users;
}

/** Adds one skill to one agent; the agent's other skills stay. Resolves to ok, unknown or failed. */
async function giveSkill(userId, skillId) {
  const response = await call('PATCH', `/api/v2/users/${userId}/routingskills/bulk`, [{ id: skillId, proficiency }]);
  await response.arrayBuffer();
  // `unknown`: sent, but nobody can tell whether it was done. Look before you repeat it.
  if (response.headers.get('tidegate-outcome') === 'unknown') return 'unknown';
  return response.ok ? 'ok' : 'failed';
}

token = await login();
const skillId = await findSkill(options.skill);
const users = await firstUsers(Number(options.users));

console.log('user_id,skill_id,proficiency,status');
let next = 0;
let done = 0;
const worker = async () => {
  while (next < users.length) {
    const userId = users[next++];
    const status = await giveSkill(userId, skillId);
    console.log([userId, skillId, proficiency, status].join(','));
    done += status === 'ok';
  }
};
await Promise.all(Array.from({ length: Number(options.workers) }, worker));
console.error(`${done} of ${users.length} agents have ${options.skill} ${proficiency}`);
process.exitCode = done === users.length ? 0 : 1;
