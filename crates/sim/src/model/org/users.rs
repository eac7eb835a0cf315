//! Users: versions that conflict, and creation that is not idempotent.

mod routing_languages;
mod routing_skills;
mod search;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use http::Method;
use serde_json::{Map, Value, json};

use super::{Done, paging};
use crate::config::SimConfig;
use crate::model::uuid_text;
use crate::wire::errors::ApiError;
use crate::wire::message::ApiRequest;

/// Most users one `PATCH /api/v2/users/bulk` may name (SDK documentation of the operation).
const BULK_MAX: usize = 50;

/// Seeded users are spread over these.
const DEPARTMENTS: [&str; 3] = ["Sales", "Service", "Claims"];

/// The fields of a user that PATCH may change, besides the version.
const PATCHABLE: [&str; 7] = ["name", "email", "title", "department", "state", "acdAutoAnswer", "username"];

/// The id of the n-th seeded user (from 0).
pub fn id(index: usize) -> String {
    format!("00000000-0000-4000-8000-{:012x}", index + 1)
}

/// One user.
#[derive(Debug, Clone)]
pub struct User {
    id: String,
    version: u64,
    /// The plain fields as last written.
    fields: Map<String, Value>,
    skills: BTreeMap<String, f64>,
    languages: BTreeMap<String, f64>,
    /// Not found before this time (eventual consistency).
    visible: Duration,
}

impl User {
    fn text(&self, field: &str) -> &str {
        self.fields.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    /// The user's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The user's display name.
    pub fn name(&self) -> &str {
        self.text("name")
    }

    /// The user's email, the natural key.
    pub fn email(&self) -> &str {
        self.text("email")
    }

    /// The current version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether the user can already be read.
    pub fn is_visible(&self, now: Duration) -> bool {
        self.visible <= now
    }

    fn entity(&self) -> Value {
        let mut fields = self.fields.clone();
        fields.insert("id".to_owned(), json!(self.id));
        fields.insert("version".to_owned(), json!(self.version));
        fields.insert("selfUri".to_owned(), json!(format!("/api/v2/users/{}", self.id)));
        Value::Object(fields)
    }
}

/// All users of the organisation.
#[derive(Debug)]
pub struct Users {
    /// In order of creation; deleted ones are removed from here and from `index`.
    list: Vec<User>,
    index: HashMap<String, usize>,
    emails: HashMap<String, u32>,
    lag: Duration,
    unique_email: bool,
    require_version: bool,
}

impl Users {
    /// The users an organisation starts with.
    pub fn seeded(config: &SimConfig) -> Self {
        let mut users = Self {
            list: Vec::new(),
            index: HashMap::new(),
            emails: HashMap::new(),
            lag: config.lag,
            unique_email: config.unique_email,
            require_version: config.require_version,
        };
        for number in 1..=config.users {
            let fields = json!({
                "name": format!("Agent {number:05}"),
                "email": format!("agent{number:05}@example.com"),
                "username": format!("agent{number:05}@example.com"),
                "state": "active",
                "department": DEPARTMENTS[number as usize % DEPARTMENTS.len()],
            });
            let Value::Object(fields) = fields else { continue };
            users.insert(id(number as usize - 1), fields, Duration::ZERO);
        }
        users
    }

    fn insert(&mut self, id: String, fields: Map<String, Value>, visible: Duration) -> &User {
        let user = User {
            id: id.clone(),
            version: 1,
            fields,
            skills: BTreeMap::new(),
            languages: BTreeMap::new(),
            visible,
        };
        *self.emails.entry(user.email().to_lowercase()).or_insert(0) += 1;
        self.index.insert(id, self.list.len());
        self.list.push(user);
        &self.list[self.list.len() - 1]
    }

    /// Whether there is such a user, who can already be read.
    pub fn exists(&self, now: Duration, id: &str) -> bool {
        self.index.get(id).is_some_and(|index| self.list[*index].is_visible(now))
    }

    /// All users in order of creation.
    pub fn iter(&self) -> impl Iterator<Item = &User> {
        self.list.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Every user's skills, by user id.
    pub fn skills(&self) -> BTreeMap<String, BTreeMap<String, f64>> {
        self.list.iter().map(|user| (user.id.clone(), user.skills.clone())).collect()
    }

    /// A hash over all users' skills (FNV-1a), the same in every process.
    pub fn hash(&self) -> String {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut add = |bytes: &[u8]| {
            for byte in bytes {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        for (user, skills) in self.skills() {
            add(user.as_bytes());
            for (skill, proficiency) in skills {
                add(skill.as_bytes());
                add(&proficiency.to_be_bytes());
            }
        }
        format!("{hash:016x}")
    }

    /// One user as the judge sees it: its fields, version and skills.
    pub fn judged(&self, id: &str) -> Option<Value> {
        let user = &self.list[*self.index.get(id)?];
        let mut entity = user.entity();
        entity["routingSkills"] = json!(user.skills);
        entity["routingLanguages"] = json!(user.languages);
        Some(entity)
    }

    fn find(&mut self, now: Duration, id: &str) -> Result<&mut User, ApiError> {
        self.index
            .get(id)
            .map(|index| &mut self.list[*index])
            .filter(|user| user.is_visible(now))
            .ok_or_else(|| ApiError::not_found(id))
    }

    /// Answers a call about users; `path` is what follows `/api/v2/users`.
    pub(super) fn handle(
        &mut self,
        now: Duration,
        request: &ApiRequest,
        path: &[&str],
        rng: &mut fastrand::Rng,
    ) -> Option<Done> {
        match (request.method.as_str(), path) {
            ("GET", []) => Some(Done::ok("GET /api/v2/users", self.listing(now, request))),
            ("POST", []) => Some(self.create(now, request.json(), rng)),
            ("POST", ["search"]) => Some(Done::of("POST /api/v2/users/search", self.search(now, request))),
            ("PATCH", ["bulk"]) => Some(Done::of("PATCH /api/v2/users/bulk", self.bulk(now, request))),
            (_, [id]) => self.handle_one(now, request, id),
            (_, [id, "routingskills", rest @ ..]) => self.handle_skills(now, request, id, rest),
            (_, [id, "routinglanguages", rest @ ..]) => self.handle_languages(now, request, id, rest),
            _ => None,
        }
    }

    fn listing(&self, now: Duration, request: &ApiRequest) -> Value {
        let state = request.query("state").unwrap_or("active");
        let listed: Vec<&User> = self
            .list
            .iter()
            .filter(|user| user.is_visible(now) && (state == "any" || user.text("state") == state))
            .collect();
        paging::page(request, &listed, |user| user.entity())
    }

    /// Creates a user; also used by bulk jobs.
    pub(super) fn create(&mut self, now: Duration, body: Option<Value>, rng: &mut fastrand::Rng) -> Done {
        const ENDPOINT: &str = "POST /api/v2/users";
        let Some(Value::Object(mut fields)) = body else {
            return Done::error(ENDPOINT, ApiError::bad_request("the body must be a JSON object"));
        };
        let missing: Vec<&str> = ["name", "email"]
            .into_iter()
            .filter(|field| fields.get(*field).and_then(Value::as_str).is_none_or(str::is_empty))
            .collect();
        if !missing.is_empty() {
            return Done::error(ENDPOINT, ApiError::bad_request(format!("missing: {}", missing.join(", "))));
        }
        let email = fields["email"].as_str().unwrap_or_default().to_lowercase();
        let exists = self.emails.get(&email).copied().unwrap_or(0) > 0;
        if exists && self.unique_email {
            let message = format!("a user with the email {email} exists already");
            return Done::error(ENDPOINT, ApiError::new(409, "general.conflict", message));
        }
        fields.retain(|field, _| PATCHABLE.contains(&field.as_str()));
        fields.entry("state").or_insert_with(|| json!("active"));
        let visible = if self.lag.is_zero() { Duration::ZERO } else { now + self.lag };
        let body = self.insert(uuid_text(rng), fields, visible).entity();
        Done { duplicate_emails: u32::from(exists), ..Done::ok(ENDPOINT, body) }
    }

    fn handle_one(&mut self, now: Duration, request: &ApiRequest, id: &str) -> Option<Done> {
        Some(match request.method {
            Method::GET => Done::of("GET /api/v2/users/{id}", self.find(now, id).map(|user| user.entity())),
            Method::PATCH => Done::of("PATCH /api/v2/users/{id}", self.patch(now, id, request.json())),
            Method::DELETE => Done::of("DELETE /api/v2/users/{id}", self.delete(now, id)),
            _ => return None,
        })
    }

    fn patch(&mut self, now: Duration, id: &str, body: Option<Value>) -> Result<Value, ApiError> {
        let Some(Value::Object(changes)) = body else {
            return Err(ApiError::bad_request("the body must be a JSON object"));
        };
        let require_version = self.require_version;
        let user = self.find(now, id)?;
        match changes.get("version").map(Value::as_u64) {
            Some(Some(sent)) if sent == user.version => {}
            Some(Some(sent)) => return Err(ApiError::version_conflict(sent, user.version)),
            Some(None) => return Err(ApiError::bad_request("version must be a whole number")),
            None if require_version => return Err(ApiError::bad_request("version is required")),
            None => {}
        }
        let before = user.email().to_lowercase();
        for (field, value) in changes {
            if PATCHABLE.contains(&field.as_str()) {
                user.fields.insert(field, value);
            }
        }
        user.version += 1;
        let (entity, after) = (user.entity(), user.email().to_lowercase());
        self.rename(&before, &after);
        Ok(entity)
    }

    /// Keeps the count of users per email.
    fn rename(&mut self, before: &str, after: &str) {
        if let Some(count) = self.emails.get_mut(before) {
            *count = count.saturating_sub(1);
        }
        *self.emails.entry(after.to_owned()).or_insert(0) += 1;
    }

    fn delete(&mut self, now: Duration, id: &str) -> Result<Value, ApiError> {
        let email = self.find(now, id)?.email().to_lowercase();
        let position = self.index.remove(id).ok_or_else(|| ApiError::not_found(id))?;
        self.list.remove(position);
        for index in self.index.values_mut().filter(|index| **index > position) {
            *index -= 1;
        }
        if let Some(count) = self.emails.get_mut(&email) {
            *count = count.saturating_sub(1);
        }
        Ok(json!({}))
    }

    /// `PATCH /api/v2/users/bulk`: only `{id, acdAutoAnswer}`, all or nothing.
    fn bulk(&mut self, now: Duration, request: &ApiRequest) -> Result<Value, ApiError> {
        let Some(Value::Array(items)) = request.json() else {
            return Err(ApiError::bad_request("the body must be a JSON array"));
        };
        if items.len() > BULK_MAX {
            return Err(ApiError::bad_request(format!("at most {BULK_MAX} users, got {}", items.len())));
        }
        let mut changes = Vec::with_capacity(items.len());
        for item in &items {
            let (Some(id), Some(answer)) = (item["id"].as_str(), item["acdAutoAnswer"].as_bool()) else {
                return Err(ApiError::bad_request("each item needs id and acdAutoAnswer"));
            };
            self.find(now, id)?;
            changes.push((id, answer));
        }
        let mut entities = Vec::with_capacity(changes.len());
        for (id, answer) in changes {
            let user = self.find(now, id)?;
            user.fields.insert("acdAutoAnswer".to_owned(), json!(answer));
            user.version += 1;
            entities.push(user.entity());
        }
        Ok(json!({ "total": entities.len(), "entities": entities }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{languages, skills};
    use super::*;

    const FIRST: &str = "00000000-0000-4000-8000-000000000001";

    struct Bench(Users, fastrand::Rng);

    impl Bench {
        fn new(change: impl FnOnce(&mut SimConfig)) -> Self {
            let mut config = SimConfig { users: 3, ..SimConfig::default() };
            change(&mut config);
            Self(Users::seeded(&config), fastrand::Rng::with_seed(1))
        }

        fn call(&mut self, at: u64, method: &str, path: &str, body: &Value) -> Result<Value, ApiError> {
            let mut request = ApiRequest::new(method.parse().unwrap(), &format!("/api/v2/users/{path}"));
            request.body = body.to_string().into_bytes();
            let path = path.split('?').next().unwrap_or_default();
            let path: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
            let done = self.0.handle(Duration::from_secs(at), &request, &path, &mut self.1).unwrap();
            done.result.map(|success| success.body.unwrap())
        }
    }

    #[test]
    fn a_stale_version_conflicts_and_changes_nothing() {
        let mut bench = Bench::new(|_| ());
        let patched = bench.call(0, "PATCH", FIRST, &json!({"version": 1, "title": "Lead"})).unwrap();
        assert_eq!((&patched["version"], &patched["title"]), (&json!(2), &json!("Lead")));
        let stale = bench.call(0, "PATCH", FIRST, &json!({"version": 1, "title": "Boss"})).unwrap_err();
        assert_eq!(stale.status, 409);
        assert_eq!(bench.call(0, "GET", FIRST, &json!(null)).unwrap()["title"], "Lead");
    }

    #[test]
    fn a_missing_version_is_refused_only_if_required() {
        let body = json!({"title": "Lead"});
        assert!(Bench::new(|_| ()).call(0, "PATCH", FIRST, &body).is_ok());
        let strict = Bench::new(|config| config.require_version = true).call(0, "PATCH", FIRST, &body);
        assert_eq!(strict.unwrap_err().status, 400);
    }

    #[test]
    fn creating_twice_makes_two_users_unless_emails_are_unique() {
        let body = json!({"name": "Ann", "email": "Ann@example.com"});
        let mut bench = Bench::new(|_| ());
        bench.call(0, "POST", "", &body).unwrap();
        bench.call(0, "POST", "", &body).unwrap();
        assert_eq!(bench.0.len(), 5);
        let mut unique = Bench::new(|config| config.unique_email = true);
        unique.call(0, "POST", "", &body).unwrap();
        assert_eq!(unique.call(0, "POST", "", &body).unwrap_err().status, 409);
    }

    #[test]
    fn a_bulk_call_lists_everything_and_one_wrong_item_spoils_it() {
        let mut bench = Bench::new(|_| ());
        let row = |index| json!({ "id": languages::id(index), "proficiency": index });
        let path = format!("{FIRST}/routinglanguages/bulk");
        let merged = bench.call(0, "PATCH", &path, &json!([row(0), row(1)])).unwrap();
        assert_eq!((&merged["total"], merged["entities"].as_array().unwrap().len()), (&json!(2), 2));
        let wrong = json!([row(2), { "id": "x", "proficiency": 1 }]);
        assert_eq!(bench.call(0, "PATCH", &path, &wrong).unwrap_err().status, 400);
        let skills: Vec<Value> =
            (0..20).map(|index| json!({ "id": skills::id(index), "proficiency": 3 })).collect();
        let path = format!("{FIRST}/routingskills/bulk");
        let merged = bench.call(0, "PATCH", &format!("{path}?pageSize=1"), &json!(skills)).unwrap();
        assert_eq!(merged["entities"].as_array().unwrap().len(), 20, "the operation knows no pages");
        let judged = bench.0.judged(FIRST).unwrap();
        assert_eq!(judged["routingLanguages"], json!({ languages::id(0): 0.0, languages::id(1): 1.0 }));
        assert_eq!(judged["routingSkills"].as_object().unwrap().len(), 20);
        assert_eq!(bench.0.judged("x"), None);
    }

    #[test]
    fn languages_come_and_go_one_by_one() {
        let mut bench = Bench::new(|_| ());
        let path = format!("{FIRST}/routinglanguages");
        let one = format!("{path}/{}", languages::id(4));
        assert_eq!(bench.call(0, "PATCH", &one, &json!({ "proficiency": 2 })).unwrap_err().status, 404);
        bench.call(0, "POST", &path, &json!({ "id": languages::id(4), "proficiency": 5 })).unwrap();
        assert_eq!(bench.call(0, "PATCH", &one, &json!({ "proficiency": 2 })).unwrap()["name"], "Italian");
        assert_eq!(bench.call(0, "GET", &path, &json!(null)).unwrap()["entities"][0]["proficiency"], 2.0);
        bench.call(0, "DELETE", &one, &json!(null)).unwrap();
        assert_eq!(bench.call(0, "DELETE", &one, &json!(null)).unwrap_err().status, 404);
    }

    #[test]
    fn a_new_user_is_not_found_until_the_lag_is_over() {
        let mut bench = Bench::new(|config| config.lag = Duration::from_secs(2));
        let created = bench.call(10, "POST", "", &json!({"name": "A", "email": "a@x"})).unwrap();
        let id = created["id"].as_str().unwrap().to_owned();
        assert_eq!(bench.call(11, "GET", &id, &json!(null)).unwrap_err().status, 404);
        assert!(bench.call(12, "GET", &id, &json!(null)).is_ok());
        assert!(bench.call(0, "GET", FIRST, &json!(null)).is_ok(), "seeded users are there at once");
    }

    #[test]
    fn a_search_finds_active_users_once_the_index_knows_them() {
        let mut bench = Bench::new(|config| config.lag = Duration::from_secs(2));
        bench.call(10, "POST", "", &json!({"name": "Ann", "email": "Ann@x"})).unwrap();
        bench.call(10, "POST", "", &json!({"name": "Bob", "email": "bob@x", "state": "inactive"})).unwrap();
        let mut total = |at: u64, kind: &str, field: &str, value: &str| {
            let query = json!({"query": [{"type": kind, "fields": [field], "value": value}]});
            bench.call(at, "POST", "search", &query).map(|found| found["total"].as_u64().unwrap())
        };
        assert_eq!(total(11, "EXACT", "email", "ann@x").unwrap(), 0);
        assert_eq!(total(12, "EXACT", "email", "ann@x").unwrap(), 1);
        assert_eq!(total(12, "EXACT", "email", "ann").unwrap(), 0);
        assert_eq!(total(12, "CONTAINS", "email", "@x").unwrap(), 1, "the other one is not active");
        assert_eq!(total(12, "EXACT", "state", "inactive").unwrap(), 1, "it was asked for");
        assert_eq!(total(12, "STARTS_WITH", "name", "agent").unwrap(), 3);
        assert_eq!(total(12, "LIKE", "name", "agent").unwrap_err().status, 400);
    }

    #[test]
    fn skills_merge_by_patch_and_are_replaced_by_put() {
        let mut bench = Bench::new(|_| ());
        let path = format!("{FIRST}/routingskills/bulk");
        let item = |index, proficiency: f64| json!([{"id": skills::id(index), "proficiency": proficiency}]);
        bench.call(0, "PATCH", &path, &item(0, 3.0)).unwrap();
        assert_eq!(bench.call(0, "PATCH", &path, &item(1, 4.5)).unwrap()["total"], 2);
        let replaced = bench.call(0, "PUT", &path, &item(2, 1.0)).unwrap();
        assert_eq!((&replaced["total"], &replaced["entities"][0]["name"]), (&json!(1), &json!("Sales")));
        assert_eq!(bench.call(0, "PATCH", &path, &item(0, 6.0)).unwrap_err().status, 400);
        assert_eq!(bench.0.skills()[FIRST].len(), 1);
    }

    #[test]
    fn the_hash_tells_final_states_apart() {
        let (mut one, mut two) = (Bench::new(|_| ()), Bench::new(|_| ()));
        let path = format!("{FIRST}/routingskills/{}", skills::id(4));
        assert_eq!(one.0.hash(), two.0.hash());
        one.call(0, "PUT", &path, &json!({"proficiency": 2})).unwrap();
        assert_ne!(one.0.hash(), two.0.hash());
        two.call(0, "PUT", &path, &json!({"proficiency": 2})).unwrap();
        assert_eq!(one.0.hash(), two.0.hash());
    }

    #[test]
    fn deleting_keeps_the_others_reachable() {
        let mut bench = Bench::new(|_| ());
        bench.call(0, "DELETE", FIRST, &json!(null)).unwrap();
        assert_eq!(bench.call(0, "GET", FIRST, &json!(null)).unwrap_err().status, 404);
        let second = "00000000-0000-4000-8000-000000000002";
        assert_eq!(bench.call(0, "GET", second, &json!(null)).unwrap()["id"], second);
    }
}
