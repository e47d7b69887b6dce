//! The requests of a policy.
#[path = "../../src/policy/template.rs"]
pub mod template;
