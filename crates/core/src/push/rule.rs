//! Which path is told about by which topic: `[push]` of a profile.
//!
//! A topic is a text of words with dots between them; `{1}` stands for what the first `*` of the rule's path stands for. Each `*` is
//! named in the topic, so that a rule is read both ways: who polls a path finds its topic, and an event finds the paths it is about.
//! Several topics that begin alike are subscribed to as one, as `v2.users.7?presence&routingStatus`; their events bear
//! the names of each (`v2.users.7.presence`).

use std::time::Duration;

use http::Method;
use serde_json::Value;

use crate::glob::PathGlob;
use crate::profile::parse_place;
use crate::profile::reader::Section;
use crate::template::{Piece, encode, pieces};

/// The longest name of a topic. Source: the limits of Genesys' notification service, below 200 characters.
const LONGEST: usize = 199;

/// How an upstream's channels are made and spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelKind {
    /// `POST /api/v2/notifications/channels`, a `WebSocket` at its `connectUri`, subscriptions below the channel's path.
    Genesys,
}

impl ChannelKind {
    /// Every kind with its name in profiles.
    pub const NAMES: [(&'static str, Self); 1] = [("genesys", Self::Genesys)];
}

/// A vendor's rules for push.
#[derive(Clone, Debug, PartialEq)]
pub struct PushRules {
    /// How its channels are made.
    pub channels: ChannelKind,
    /// How often a socket says something at least.
    pub heartbeat: Duration,
    /// How long a channel lives where the upstream does not say.
    pub life: Duration,
    /// Channels that one user of one application may have.
    pub max_channels: usize,
    /// Topics that one channel may have.
    pub max_topics: usize,
    /// What is told about by what.
    pub topics: Vec<TopicRule>,
}

/// A topic, and what its events are about.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicRule {
    /// Words, and holes where a `*` of the path is put in.
    words: Vec<Word>,
    /// What stands behind a `?`: ends of the topics that are subscribed to as one. Empty where it is one topic.
    ends: Vec<String>,
    /// The path whose changes it tells of.
    pub path: Option<PathGlob>,
    /// The path of what an event is about, by what it says.
    pub carries: Option<Carried>,
    /// Where an event says which version or what time it is of, as JSON pointers into its `eventBody`; the first that is there counts.
    pub order: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    Text(String),
    /// What the n-th `*` stands for, from 0.
    Star(usize),
}

/// A path made of what an event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried(Vec<Piece<Hole>>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hole {
    Star(usize),
    Pointer(String),
}

impl TopicRule {
    /// The topic that tells of `path` (normalised), if this rule is about it.
    ///
    /// ```
    /// use tidegate_core::profile::Profile;
    ///
    /// let push = Profile::builtin("genesys").unwrap().push.unwrap();
    /// assert_eq!(push.topic_of("/api/v2/users/7/presences/purecloud").unwrap(), "v2.users.7.presence");
    /// assert_eq!(push.topic_of("/api/v2/users"), None);
    /// ```
    pub fn topic_of(&self, path: &str) -> Option<String> {
        let stars = self.path.as_ref()?.stars(path)?;
        let words = self.words.iter().map(|word| match word {
            Word::Text(text) => Some(text.as_str()),
            // A dot would make two words of it, and of another topic.
            Word::Star(at) => stars.get(*at).copied().filter(|star| is_word(star)),
        });
        let words: Vec<&str> = words.collect::<Option<_>>()?;
        let mut topic = words.join(".");
        if !self.ends.is_empty() {
            topic = format!("{topic}?{}", self.ends.join("&"));
        }
        (topic.len() <= LONGEST).then_some(topic)
    }

    /// What each `*` stands for in `topic`, if it is one of this rule.
    fn stars<'t>(&self, topic: &'t str) -> Option<Vec<&'t str>> {
        let begin = match topic.split_once('?') {
            Some((begin, ends)) => Some(begin).filter(|_| ends.split('&').eq(&self.ends)),
            None if self.ends.is_empty() => Some(topic),
            None => self.ends.iter().find_map(|end| topic.strip_suffix(end)?.strip_suffix('.')),
        };
        let words: Vec<&str> = begin?.split('.').collect();
        if words.len() != self.words.len() {
            return None;
        }
        let count = self.words.iter().filter(|word| matches!(word, Word::Star(_))).count();
        let mut stars = vec![""; count];
        for (word, found) in self.words.iter().zip(words) {
            match word {
                Word::Text(text) if text == found => {}
                Word::Text(_) => return None,
                Word::Star(at) => *stars.get_mut(*at)? = found,
            }
        }
        Some(stars)
    }

    /// The path that `topic` tells of, if it is one of this rule and has one.
    pub fn path_of(&self, topic: &str) -> Option<String> {
        let mut stars = self.stars(topic)?.into_iter();
        let segments = self.path.as_ref()?.as_str().split('/').map(|segment| match segment {
            "*" => stars.next(),
            word => Some(word),
        });
        let segments: Vec<&str> = segments.collect::<Option<_>>()?;
        Some(segments.join("/"))
    }

    /// The path of what an event on `topic` is about, by what it says.
    pub fn carried(&self, topic: &str, body: &Value) -> Option<String> {
        let stars = self.stars(topic)?;
        self.carries.as_ref()?.fill(&stars, body)
    }

    /// Whether `topic` is one of this rule.
    pub fn is_about(&self, topic: &str) -> bool {
        self.stars(topic).is_some()
    }
}

impl Carried {
    fn fill(&self, stars: &[&str], body: &Value) -> Option<String> {
        let mut path = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => path.push_str(text),
                Piece::Hole(Hole::Star(at)) => path.push_str(stars.get(*at)?),
                Piece::Hole(Hole::Pointer(pointer)) => {
                    let text = match body.pointer(pointer)? {
                        Value::String(text) => text.clone(),
                        Value::Number(number) => number.to_string(),
                        _ => return None,
                    };
                    if matches!(text.as_str(), "" | "." | "..") {
                        return None;
                    }
                    encode(&text, &mut path);
                }
            }
        }
        Some(path)
    }
}

impl PushRules {
    /// The topic that tells of `path` (normalised), by the first rule about it.
    pub fn topic_of(&self, path: &str) -> Option<String> {
        self.topics.iter().find_map(|rule| rule.topic_of(path))
    }

    /// The path that `topic` tells of, by the first rule about it that has one.
    pub fn path_of(&self, topic: &str) -> Option<String> {
        self.topics.iter().find_map(|rule| rule.path_of(topic))
    }

    /// The rules about `topic`.
    pub fn about(&self, topic: &str) -> impl Iterator<Item = &TopicRule> {
        self.topics.iter().filter(move |rule| rule.is_about(topic))
    }
}

/// Reads `[push]`.
pub(crate) fn read(section: &Section<'_>) -> Option<PushRules> {
    let channels = section.one_of("channels", &ChannelKind::NAMES);
    let channels = section.required("channels", "channels = \"genesys\"", channels);
    let heartbeat = section.duration_above_zero("heartbeat").unwrap_or(Duration::from_secs(30));
    let life = section.duration_above_zero("life").unwrap_or(Duration::from_hours(24));
    if life < heartbeat * 4 {
        section.problem("life", "is below four heartbeats (channels would be made all the time)");
    }
    let number = |key, least, default: u64| {
        let number = section.integer(key, &(least..=100_000)).unwrap_or(default);
        usize::try_from(number).unwrap_or(usize::MAX)
    };
    let (max_channels, max_topics) = (number("max_channels", 2, 20), number("max_topics", 1, 1000));
    let mut topics: Vec<TopicRule> = Vec::new();
    for section in section.sections("topic") {
        let Some(rule) = read_topic(&section) else { continue };
        let same = |earlier: &TopicRule| earlier.path.is_some() && earlier.path == rule.path;
        if topics.iter().any(same) {
            section.problem("match", "is that of an earlier topic, which decides (remove one)");
        }
        topics.push(rule);
    }
    Some(PushRules { channels: channels?, heartbeat, life, max_channels, max_topics, topics })
}

fn read_topic(section: &Section<'_>) -> Option<TopicRule> {
    let place = section.parsed("match", parse_place);
    if place.as_ref().is_some_and(|(method, _)| method.as_ref().is_some_and(|method| method != Method::GET)) {
        section.problem("match", "names another method than GET (only answers to GET are kept)");
    }
    let path = place.map(|(_, path)| path);
    let words = section.parsed("topic", read_words);
    let (words, ends) = section.required("topic", "topic = \"v2.users.{1}.presence\"", words)?;
    let mut named: Vec<usize> = words
        .iter()
        .filter_map(|word| match word {
            Word::Star(at) => Some(*at),
            Word::Text(_) => None,
        })
        .collect();
    named.sort_unstable();
    let in_order = named.iter().copied().eq(0..named.len());
    if !in_order {
        section.problem("topic", "does not name `{1}`, `{2}` and so on once each");
    }
    if let Some(path) = &path {
        match path.star_count() {
            None => section.problem("match", "has a `**` (one topic tells of one path: write `*`)"),
            Some(stars) if stars != named.len() => {
                let what = format!(
                    "does not name each of the {stars} `*` of `match` once (write {{1}} for the first)"
                );
                section.problem("topic", what);
            }
            Some(_) => {}
        }
    }
    let stars = named.len();
    let carries = section.parsed("carries", |text| read_carried(text, stars));
    if path.is_none() && carries.is_none() && !section.has("match") && !section.has("carries") {
        section.problem("topic", "tells of nothing (write match, or carries)");
    }
    let order = section.each("order", |text| {
        if text.starts_with('/') {
            Ok(text.to_owned())
        } else {
            Err(format!("`{text}` is no JSON pointer (begin with a slash, such as \"/version\")"))
        }
    });
    Some(TopicRule { words, ends, path, carries, order: order.unwrap_or_default() })
}

fn read_words(text: &str) -> Result<(Vec<Word>, Vec<String>), String> {
    if text.len() > LONGEST {
        return Err(format!("is longer than {LONGEST} characters"));
    }
    let (begin, ends) = match text.split_once('?') {
        Some((begin, ends)) => (begin, ends.split('&').map(str::to_owned).collect()),
        None => (text, Vec::new()),
    };
    if let Some(end) = ends.iter().find(|end| !end.split('.').all(is_word)) {
        return Err(format!("`{end}` is no end of a topic (write names with & between them behind the ?)"));
    }
    let words: Result<Vec<Word>, String> = begin
        .split('.')
        .map(|word| match word.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(inside) => read_star(inside).map(Word::Star),
            None if is_word(word) => Ok(Word::Text(word.to_owned())),
            None => Err(format!(
                "`{word}` is no word of a topic (write letters, digits, -, _ or a hole such as {{1}})"
            )),
        })
        .collect();
    words.map(|words| (words, ends))
}

fn read_star(inside: &str) -> Result<usize, String> {
    let number = inside.parse::<usize>().ok().filter(|number| (1..=9).contains(number));
    number
        .map(|number| number - 1)
        .ok_or_else(|| format!("`{{{inside}}}` names no `*` (write {{1}} for the first)"))
}

fn read_carried(text: &str, stars: usize) -> Result<Carried, String> {
    if !text.starts_with('/') {
        return Err(format!("`{text}` is no path (begin with a slash)"));
    }
    let hole = |inside: &str| {
        if inside.starts_with('/') {
            return Ok(Hole::Pointer(inside.to_owned()));
        }
        let at = read_star(inside)?;
        if at < stars { Ok(Hole::Star(at)) } else { Err(format!("`{{{inside}}}` is not in the topic")) }
    };
    pieces(text, hole).map(Carried)
}

/// Whether a text can stand between two dots of a topic.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Reads a topic as a person writes it.
///
/// # Errors
/// What is wrong with it, and in parentheses what to write.
///
/// ```
/// use tidegate_core::push::topic;
///
/// assert!(topic("v2.users.7.presence").is_ok());
/// assert!(topic("v2.users.*").is_err());
/// ```
pub fn topic(text: &str) -> Result<&str, String> {
    if text.is_empty() || text.len() > LONGEST {
        return Err(format!("has to have 1 to {LONGEST} characters"));
    }
    if text.contains('*') {
        return Err(format!("`{text}` has a `*` (upstreams tell of topics one by one: write each)"));
    }
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'{' | b'}');
    if text.bytes().all(fits) { Ok(text) } else { Err(format!("`{}` is no topic", text.escape_default())) }
}

/// The topics as whose events those of a subscription come: several where it joins some that begin alike.
///
/// ```
/// use tidegate_core::push::parts;
///
/// assert_eq!(parts("v2.users.7?presence&routingStatus"), ["v2.users.7.presence", "v2.users.7.routingStatus"]);
/// assert_eq!(parts("v2.users.7.presence"), ["v2.users.7.presence"]);
/// ```
pub fn parts(topic: &str) -> Vec<String> {
    match topic.split_once('?') {
        Some((begin, ends)) => ends.split('&').map(|end| format!("{begin}.{end}")).collect(),
        None => vec![topic.to_owned()],
    }
}

/// Which topics somebody wants to be told of: one, or all that begin alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPattern {
    text: String,
    all: bool,
}

impl TopicPattern {
    /// Reads a pattern: a topic, with a `*` at its end if all that begin so are meant.
    ///
    /// # Errors
    /// A `*` elsewhere, or nothing at all.
    ///
    /// ```
    /// use tidegate_core::push::TopicPattern;
    ///
    /// let users = TopicPattern::parse("v2.users.*").unwrap();
    /// assert!(users.matches("v2.users.7.presence") && !users.matches("v2.usersettings"));
    /// assert!(TopicPattern::parse("v2.*.presence").is_err());
    /// ```
    pub fn parse(text: &str) -> Result<Self, String> {
        let (text, all) = text.strip_suffix('*').map_or((text, false), |begin| (begin, true));
        if text.contains('*') {
            return Err(format!("`{text}` has a `*` before its end (write it at the end only)"));
        }
        if text.is_empty() && !all {
            return Err("is empty (write a topic, or * for all)".to_owned());
        }
        if text.len() > LONGEST || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("`{}` is no topic", text.escape_default()));
        }
        Ok(Self { text: text.to_owned(), all })
    }

    /// Whether `topic` is meant.
    pub fn matches(&self, topic: &str) -> bool {
        if self.all { topic.starts_with(&self.text) } else { topic == self.text }
    }

    /// The one topic that is meant, if it is one.
    pub fn exact(&self) -> Option<&str> {
        (!self.all).then_some(self.text.as_str())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::profile::Profile;

    fn genesys() -> PushRules {
        Profile::builtin("genesys").unwrap().push.unwrap()
    }

    #[test]
    fn a_rule_is_read_both_ways() {
        let rules = genesys();
        for (path, topic) in [
            ("/api/v2/users/7/presences/purecloud", "v2.users.7.presence"),
            ("/api/v2/users/7/routingstatus", "v2.users.7.routingStatus"),
            (
                "/api/v2/conversations/c-1",
                "v2.detail.events.conversation.c-1?customer.start&user.start&user.end",
            ),
        ] {
            assert_eq!(rules.topic_of(path).as_deref(), Some(topic));
            assert_eq!(rules.path_of(topic).as_deref(), Some(path));
        }
        let one = "v2.detail.events.conversation.c-1.user.end";
        assert_eq!(rules.path_of(one).as_deref(), Some("/api/v2/conversations/c-1"), "as events are named");
        assert_eq!(rules.path_of("v2.detail.events.conversation.c-1.other"), None);
        assert_eq!(
            rules.topic_of("/api/v2/users/a.b/routingstatus"),
            None,
            "a dot would make another topic of it"
        );
        assert_eq!(rules.topic_of("/api/v2/users/7"), None);
    }

    #[test]
    fn an_event_carries_what_it_is_about_and_cannot_reach_beyond_it() {
        let rules = genesys();
        let topic = "v2.users.7.conversations";
        let carried = |body| rules.about(topic).find_map(|rule| rule.carried(topic, &body));
        assert_eq!(carried(json!({ "id": "c-1" })).as_deref(), Some("/api/v2/conversations/c-1"));
        assert_eq!(carried(json!({ "id": "../users" })).as_deref(), Some("/api/v2/conversations/..%2Fusers"));
        assert_eq!(carried(json!({ "id": ".." })), None);
        assert_eq!(carried(json!({})), None);
    }

    #[test]
    fn rules_that_cannot_be_meant_are_told_all_at_once() {
        let text = "name = \"x\"\n[push]\nchannels = \"genesis\"\nlife = \"1m\"\n\
            [[push.topic]]\nmatch = \"/a/*\"\ntopic = \"v2.a\"\n\
            [[push.topic]]\nmatch = \"POST /a/**\"\ntopic = \"v2.{1}\"\norder = [\"version\"]\n\
            [[push.topic]]\ntopic = \"v2.{2}.*\"\n[[push.topic]]\ntopic = \"v2.b\"\n";
        let told = Profile::parse(text, "x.toml").unwrap_err().to_string();
        for (line, what) in [
            (3, "push.channels"),
            (4, "push.life: is below four heartbeats"),
            (7, "topic: does not name each of the 1 `*`"),
            (9, "match: names another method than GET"),
            (9, "match: has a `**`"),
            (11, "order: `version` is no JSON pointer"),
            (13, "topic: `*` is no word of a topic"),
            (15, "topic: tells of nothing"),
        ] {
            let found =
                told.lines().any(|told| told.starts_with(&format!("x.toml:{line}: ")) && told.contains(what));
            assert!(found, "{line} {what}: {told}");
        }
    }
}
