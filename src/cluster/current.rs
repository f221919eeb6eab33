//! The links that are possible now: one pointer, which a change of files or configuration replaces.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::Links;

/// What links are opened and accepted with from now on. Those that are open do not ask it.
#[derive(Default)]
pub struct Current(ArcSwapOption<Links>);

impl Current {
    /// Whether there are links at all.
    pub fn is_on(&self) -> bool {
        self.0.load().is_some()
    }

    /// What is in force; `None` where there are no links.
    pub fn load(&self) -> Option<Arc<Links>> {
        self.0.load_full()
    }

    /// Puts in force what a configuration asks for. The answer is what was in force.
    pub fn publish(&self, links: Option<Arc<Links>>) -> Option<Arc<Links>> {
        self.0.swap(links)
    }

    /// Puts in force what files have become, unless something else than `last` is in force: a configuration that came meanwhile.
    pub fn renew(&self, last: &Arc<Links>, links: Arc<Links>) -> bool {
        let found = self.0.compare_and_swap(last, Some(links));
        found.as_ref().is_some_and(|found| Arc::ptr_eq(found, last))
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Current").field(&self.is_on()).finish()
    }
}
