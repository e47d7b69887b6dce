//! engine

pub mod resolve;
