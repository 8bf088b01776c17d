//! What an evaluation knows, and how much it may produce.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use crate::error::{TemplateError, wrong};
use crate::expression::Name;
use crate::template::Template;

/// The bytes of all texts that one evaluation makes, its intermediate ones among them. A template of
/// the greatest length that does nothing but repeat a parameter would make some megabytes.
const BUDGET_BYTES: usize = 256 * 1024;

/// What would end a text, match more than itself, or begin a policy variable.
const MEANING: [char; 5] = ['"', '\\', '*', '?', '$'];

/// One evaluation.
pub(crate) struct Scope<'a> {
    template: &'a Template,
    parameters: &'a BTreeMap<String, String>,
    budget: Cell<usize>,
    /// The resources whose names are being found out, from the outermost.
    open: RefCell<Vec<String>>,
    in_document: Cell<bool>,
}

impl<'a> Scope<'a> {
    pub(crate) fn new(template: &'a Template, parameters: &'a BTreeMap<String, String>) -> Self {
        let (budget, open) = (Cell::new(BUDGET_BYTES), RefCell::default());
        Self { template, parameters, budget, open, in_document: Cell::new(false) }
    }

    /// Evaluates a part of a policy document: a parameter shall not say what the policy allows.
    pub(crate) fn in_document<T>(&self, evaluate: impl FnOnce() -> T) -> T {
        let outer = self.in_document.replace(true);
        let evaluated = evaluate();
        self.in_document.set(outer);
        evaluated
    }

    /// Takes from the budget; a step costs one byte at least.
    pub(crate) fn spend(&self, at: &str, bytes: usize) -> Result<(), TemplateError> {
        let left = self.budget.get().checked_sub(bytes + 1);
        let left = left.ok_or_else(|| {
            wrong(at, format!("the template makes more than {BUDGET_BYTES} bytes of text"))
        })?;
        self.budget.set(left);
        Ok(())
    }

    pub(crate) fn value_of(&self, at: &str, name: &Name) -> Result<String, TemplateError> {
        match name {
            Name::Parameter(name) => {
                let given = self.parameters.get(name);
                if let Some(value) = given
                    && self.in_document.get()
                    && value.contains(|it: char| it.is_control() || MEANING.contains(&it))
                {
                    let problem = format!(
                        "parameter {name:?} has a character that means something in a policy: one of \
                         {MEANING:?}, or a control character"
                    );
                    return Err(wrong(at, problem));
                }
                let value = given.or_else(|| self.template.default_of(name));
                let missing =
                    || wrong(at, format!("parameter {name:?} has no value and no default"));
                value.cloned().ok_or_else(missing)
            }
            Name::Resource(name) => {
                if self.open.borrow().contains(name) {
                    let problem = format!("resource {name:?} refers to itself");
                    return Err(wrong(at, problem));
                }
                self.open.borrow_mut().push(name.clone());
                let value = self.template.resources.name_of(name, self);
                self.open.borrow_mut().pop();
                value
            }
        }
    }

    /// A value of the mappings.
    pub(crate) fn mapped(&self, at: &str, keys: &[String; 3]) -> Result<String, TemplateError> {
        let [map, first, second] = keys;
        let found = self.template.mappings.get(map).and_then(|map| map.get(first)?.get(second));
        found.cloned().ok_or_else(|| {
            wrong(at, format!("the mappings have no {map:?}, {first:?}, {second:?}"))
        })
    }
}
