//! Policies ready to decide: per action the patterns that matter, denials first.
//!
//! Compiling takes from each pattern what every resource of an action begins with (the ARN up to the
//! topic name), so deciding compares a topic name as it is and builds no string.

use std::ops::Range;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::action::Kind;
use crate::condition::{Check, Folded};
use crate::document::{Effect, Resources, Statement};
use crate::{Action, Document, Variables, glob};

/// What the ARNs of this installation begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arns {
    /// `aws`, `aws-cn`, …
    pub partition: String,
    /// Such as `us-east-1`.
    pub region: String,
    /// Twelve digits.
    pub account: String,
}

impl Arns {
    /// `arn:aws:iot:us-east-1:123456789012:`
    pub fn prefix(&self) -> String {
        let Self { partition, region, account } = self;
        format!("arn:{partition}:iot:{region}:{account}:")
    }
}

/// What is known only per request. `Default` is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request<'a> {
    /// CONNECT asks for a session that outlives the connection: `PersistentConnect`.
    pub persistent_connect: bool,
    /// CONNECT carries a will for this topic name: `LastWill` and `iot:LastWillTopic`.
    pub last_will_topic: Option<&'a str>,
    /// Unix seconds, for `aws:CurrentTime` and `aws:EpochTime`.
    pub now_secs: Option<u64>,
}

/// What the policies say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A statement allows it and none denies it.
    Allowed,
    /// A statement denies it.
    ExplicitDeny,
    /// No statement speaks of it.
    ImplicitDeny,
}

impl Decision {
    /// Whether the principal may go on.
    pub fn is_allowed(self) -> bool {
        self == Self::Allowed
    }
}

/// The policies of one principal with the variables of one connection put in; decides in memory.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// By action; those that deny come first.
    rules: Box<[Rule]>,
    /// Where the rules of an action begin; one more than there are actions.
    starts: [u32; Action::COUNT + 1],
    /// What the rules compare with, end to end.
    patterns: Box<[u8]>,
    guards: Box<[Guard]>,
    arn_prefix: Box<str>,
}

/// One pattern of one statement for one action. Small: there may be many, and each is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Rule {
    start: u32,
    length: u32,
    /// Index of what else has to hold, or [`NO_GUARD`].
    guard: u32,
    effect: Effect,
    shape: Shape,
}

const NO_GUARD: u32 = u32::MAX;

/// How a pattern is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Shape {
    Any,
    Exact,
    Prefix,
    Glob,
}

/// What a match of the pattern alone does not tell.
#[derive(Clone, Debug)]
struct Guard {
    /// Patterns of which none may match: `NotResource`.
    except: Vec<Vec<u8>>,
    checks: Arc<[Check]>,
}

impl Compiled {
    /// Compiles the union of the documents.
    pub fn new(documents: &[Arc<Document>], arns: &Arns, variables: &Variables) -> Compiled {
        let mut compiler = Compiler::new(arns.prefix());
        for statement in documents.iter().flat_map(|document| &document.statements) {
            compiler.add(statement, variables);
        }
        compiler.finish()
    }

    /// Compiles one statement.
    pub(crate) fn of(statement: &Statement, arns: &Arns, variables: &Variables) -> Compiled {
        let mut compiler = Compiler::new(arns.prefix());
        compiler.add(statement, variables);
        compiler.finish()
    }

    /// Allows everything: for development.
    pub fn allow_all() -> Compiled {
        let mut compiler = Compiler::new(String::new());
        compiler.rules.iter_mut().for_each(|rules| rules.push(Rule::everything(Effect::Allow)));
        compiler.finish()
    }

    /// Decides on a resource given as the end of its ARN: `topic/a/b`, `client/x`, `topicfilter/a/#`,
    /// `thing/t/s`; [`Action::ListRetainedMessages`] takes `*`. What an action cannot be done to is denied.
    pub fn decide(&self, action: Action, resource: &str, request: &Request<'_>) -> Decision {
        match resource.strip_prefix(action.kind().prefix()) {
            Some(name) => self.decide_name(action, name, request),
            None => Decision::ImplicitDeny,
        }
    }

    /// As [`Compiled::decide`] for an action on topics, without the `topic/` in front: every
    /// publication comes by here.
    pub fn decide_topic(&self, action: Action, topic: &str, request: &Request<'_>) -> Decision {
        debug_assert_eq!(action.kind(), Kind::Topic);
        self.decide_name(action, topic, request)
    }

    /// Heap bytes held, for budgets: conditions are not counted.
    pub fn held_bytes(&self) -> usize {
        size_of_val(&*self.rules)
            + self.patterns.len()
            + size_of_val(&*self.guards)
            + self.arn_prefix.len()
    }

    /// As [`Compiled::decide`], without what stands in front of the resource's own name.
    pub fn decide_name(&self, action: Action, name: &str, request: &Request<'_>) -> Decision {
        let index = action as usize;
        let range = self.starts[index] as usize..self.starts[index + 1] as usize;
        for rule in &self.rules[range] {
            if self.matches(rule, name) && self.guard_holds(rule.guard, name, request) {
                return match rule.effect {
                    Effect::Allow => Decision::Allowed,
                    Effect::Deny => Decision::ExplicitDeny,
                };
            }
        }
        Decision::ImplicitDeny
    }

    /// Whether a decision may be another one later, for no other reason than the time: then it must
    /// not be remembered.
    pub fn depends_on_time(&self) -> bool {
        self.guards.iter().any(|guard| guard.checks.iter().any(Check::depends_on_time))
    }

    fn matches(&self, rule: &Rule, name: &str) -> bool {
        let pattern = || &self.patterns[rule.range()];
        match rule.shape {
            Shape::Any => true,
            Shape::Exact => {
                rule.length as usize == name.len() && glob::starts_with(name.as_bytes(), pattern())
            }
            Shape::Prefix => glob::starts_with(name.as_bytes(), pattern()),
            Shape::Glob => glob::matches(pattern(), name),
        }
    }

    fn guard_holds(&self, guard: u32, name: &str, request: &Request<'_>) -> bool {
        if guard == NO_GUARD {
            return true;
        }
        let guard = &self.guards[guard as usize];
        !guard.except.iter().any(|pattern| glob::matches(pattern, name))
            && guard.checks.iter().all(|check| check.holds(request, &self.arn_prefix))
    }
}

impl Rule {
    fn everything(effect: Effect) -> Self {
        Self { start: 0, length: 0, guard: NO_GUARD, effect, shape: Shape::Any }
    }

    fn range(&self) -> Range<usize> {
        let start = self.start as usize;
        start..start + self.length as usize
    }
}

struct Compiler {
    arn_prefix: String,
    rules: [Vec<Rule>; Action::COUNT],
    patterns: Vec<u8>,
    /// Where a pattern is already.
    places: FxHashMap<Vec<u8>, u32>,
    guards: Vec<Guard>,
}

impl Compiler {
    fn new(arn_prefix: String) -> Self {
        Self {
            arn_prefix,
            rules: std::array::from_fn(|_| Vec::new()),
            patterns: Vec::new(),
            places: FxHashMap::default(),
            guards: Vec::new(),
        }
    }

    /// Adds the rules of a statement, unless it cannot match on this connection.
    fn add(&mut self, statement: &Statement, variables: &Variables) {
        let mut checks = Vec::new();
        for condition in &statement.conditions {
            match condition.fold(variables, &self.arn_prefix) {
                Folded::Holds => {}
                Folded::Fails => return,
                Folded::Open(check) => checks.push(check),
            }
        }
        let checks: Arc<[Check]> = checks.into();
        let (templates, is_except) = match &statement.resources {
            Resources::These(templates) => (templates, false),
            Resources::Except(templates) => (templates, true),
        };
        let resolved = templates.iter().map(|template| template.pattern(variables));
        let patterns: Vec<Vec<u8>> = match is_except {
            false => resolved.flatten().collect(),
            // Not knowing what is excepted is not the same as excepting nothing.
            true => match resolved.collect() {
                Some(patterns) => patterns,
                None => return,
            },
        };
        for kind in Kind::ALL {
            let is_meant =
                |action: &Action| action.kind() == kind && statement.actions.contains(*action);
            let actions: Vec<Action> = Action::ALL.into_iter().filter(is_meant).collect();
            if !actions.is_empty() {
                let names = self.names(kind, &patterns);
                let rules = self.rules_of(statement.effect, names, is_except, &checks);
                actions.iter().for_each(|action| self.rules[*action as usize].extend(&rules));
            }
        }
    }

    /// The patterns without what the ARN of every resource of this kind begins with.
    fn names(&self, kind: Kind, patterns: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let prefix = match kind {
            // Its resource is the text `*`, not an ARN.
            Kind::Everything => String::new(),
            _ => format!("{}{}", self.arn_prefix, kind.prefix()),
        };
        patterns.iter().flat_map(|pattern| glob::remainders(pattern, &prefix)).collect()
    }

    fn rules_of(
        &mut self,
        effect: Effect,
        names: Vec<Vec<u8>>,
        is_except: bool,
        checks: &Arc<[Check]>,
    ) -> Vec<Rule> {
        if is_except {
            let guard = self.guard(names, checks);
            return vec![Rule { guard, ..Rule::everything(effect) }];
        }
        let guard = match checks.is_empty() {
            true => NO_GUARD,
            false => self.guard(Vec::new(), checks),
        };
        names.iter().map(|name| Rule { guard, effect, ..self.pattern(name) }).collect()
    }

    fn guard(&mut self, except: Vec<Vec<u8>>, checks: &Arc<[Check]>) -> u32 {
        self.guards.push(Guard { except, checks: checks.clone() });
        (self.guards.len() - 1) as u32
    }

    /// A rule for a pattern, its effect and guard still open.
    fn pattern(&mut self, pattern: &[u8]) -> Rule {
        let is_wild = |byte: &u8| *byte >= glob::ONE;
        let (pattern, shape) = match pattern {
            [glob::ANY] => (&[][..], Shape::Any),
            [literal @ .., glob::ANY] if !literal.iter().any(is_wild) => (literal, Shape::Prefix),
            _ if pattern.iter().any(is_wild) => (pattern, Shape::Glob),
            _ => (pattern, Shape::Exact),
        };
        let start = *self.places.entry(pattern.to_vec()).or_insert_with(|| {
            self.patterns.extend_from_slice(pattern);
            (self.patterns.len() - pattern.len()) as u32
        });
        Rule { start, length: pattern.len() as u32, shape, ..Rule::everything(Effect::Deny) }
    }

    fn finish(self) -> Compiled {
        let mut starts = [0; Action::COUNT + 1];
        let mut rules = Vec::new();
        for (index, of_action) in self.rules.into_iter().enumerate() {
            let (deny, allow): (Vec<Rule>, Vec<Rule>) =
                of_action.into_iter().partition(|rule| rule.effect == Effect::Deny);
            rules.extend(needed(deny));
            rules.extend(needed(allow));
            starts[index + 1] = rules.len() as u32;
        }
        Compiled {
            rules: rules.into(),
            starts,
            patterns: self.patterns.into(),
            guards: self.guards.into(),
            arn_prefix: self.arn_prefix.into(),
        }
    }
}

/// Rules of one effect without repetitions; one that always matches stands for all.
fn needed(mut rules: Vec<Rule>) -> Vec<Rule> {
    let always = |rule: &&Rule| rule.shape == Shape::Any && rule.guard == NO_GUARD;
    if let Some(rule) = rules.iter().find(always) {
        return vec![*rule];
    }
    let mut seen = FxHashSet::default();
    rules.retain(|rule| seen.insert(*rule));
    rules
}
