//! Connections and requests, whatever they are about: who may ask, how much, and for how long.

pub(crate) mod access;
pub(crate) mod activity;
pub(crate) mod body;
pub(crate) mod budget;
pub(crate) mod connection;
pub(crate) mod listen;
pub(crate) mod reply;
pub(crate) mod session;
