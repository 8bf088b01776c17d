//! The names that the clients of a core have asked for, each kept once: most ask for the same few, and
//! every connection remembers its own. By an `Rc<String>`, not an `Rc<str>`: that has one word less in
//! each connection, and the name is looked at only when policies are compiled.

use std::cell::RefCell;
use std::rc::Rc;

/// Names that are shared. Clients that ask for others pay for their own.
const SHARED: usize = 32;

/// See the module.
#[derive(Debug, Default)]
pub struct DomainNames(RefCell<Vec<Rc<String>>>);

impl DomainNames {
    /// The name, shared with others that have asked for it where possible.
    pub fn share(&self, name: String) -> Rc<String> {
        let mut known = self.0.borrow_mut();
        if let Some(shared) = known.iter().find(|known| ***known == name) {
            return Rc::clone(shared);
        }
        let name = Rc::new(name);
        if known.len() == SHARED {
            known.retain(|known| Rc::strong_count(known) > 1);
        }
        if known.len() < SHARED {
            known.push(Rc::clone(&name));
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shared_and_their_number_is_bounded() {
        let names = DomainNames::default();
        let first = names.share("first".into());
        assert!(Rc::ptr_eq(&first, &names.share("first".into())));
        // Nobody has these any more: they make room.
        for n in 0..3 * SHARED {
            names.share(format!("brief-{n}"));
        }
        assert!(Rc::ptr_eq(&first, &names.share("first".into())));
        let kept: Vec<_> = (0..2 * SHARED).map(|n| names.share(format!("kept-{n}"))).collect();
        assert_eq!(names.0.borrow().len(), SHARED);
        assert!(!Rc::ptr_eq(&kept[2 * SHARED - 1], &names.share((*kept[2 * SHARED - 1]).clone())));
        assert!(Rc::ptr_eq(&first, &names.share("first".into())));
    }
}
