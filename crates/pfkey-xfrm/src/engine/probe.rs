//! The algorithms of this kernel. XFRM cannot list them: each is asked for.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::XfrmEngine;
use crate::algorithm::{Kind, write_attribute_probe, write_probe};
use pfkey_hub::{Errno, Supported};
use pfkey_model::judge::Judge;
use pfkey_model::label::SecurityLabel;
use pfkey_wire::algorithm::Algorithm;
use pfkey_wire::layout::SadbAlg;
use pfkey_wire::xfrm::{Name, OWN, attribute_info};
use pfkey_wire::{AuthAlgorithm, CompressionAlgorithm, EncryptAlgorithm, Message};

/// The algorithms and attributes that the kernel had when it was asked.
#[derive(Debug, Default)]
pub(super) struct Probed {
    algorithms: HashSet<(Kind, u8)>,
    /// Attributes, and whether the kernel knows them.
    attributes: HashMap<u16, bool>,
}

impl XfrmEngine {
    /// Asks the kernel for algorithms of a kind; it loads modules that it needs.
    fn probe(&mut self, kind: Kind, algorithms: &'static [Algorithm]) -> Result<Vec<&'static Algorithm>, Errno> {
        for algorithm in algorithms {
            write_probe(kind, algorithm, self.requests.number(), &mut self.writer);
        }
        let mut found = Vec::new();
        for (algorithm, outcome) in algorithms.iter().zip(self.requests.change_all(&mut self.writer)?) {
            match outcome {
                Err(Errno::ENOSYS) => drop(self.probed.algorithms.remove(&(kind, algorithm.id))),
                // It lacks the mode only.
                Err(Errno::EPROTONOSUPPORT) => {
                    self.probed.algorithms.insert((kind, algorithm.id));
                    found.push(algorithm);
                }
                Err(errno) => return Err(errno),
                Ok(()) => return Err(Errno::EPROTO),
            }
        }
        Ok(found)
    }

    /// The lists of REGISTER; as in the kernel, each algorithm is looked for again.
    pub(super) fn probe_all(&mut self) -> Result<Supported, Errno> {
        let aead = self.extras.aead;
        let mut list = |kind: Kind| -> Result<Vec<SadbAlg>, Errno> {
            Ok(self.probe(kind, kind.all())?.into_iter().map(Algorithm::listed).collect())
        };
        let mut supported = Supported { auth: list(Kind::Auth)?, encrypt: list(Kind::Encrypt)? };
        if aead {
            supported.encrypt.extend(list(Kind::Aead)?);
        }
        Ok(supported)
    }

    /// The algorithms of a kind that were found before.
    pub(super) fn known(&self, kind: Kind) -> impl Iterator<Item = &'static Algorithm> {
        kind.all().iter().filter(move |algorithm| self.probed.algorithms.contains(&(kind, algorithm.id)))
    }

    fn has(&mut self, kind: Kind, id: u8) -> bool {
        if self.probed.algorithms.contains(&(kind, id)) {
            return true;
        }
        let place = kind.all().iter().position(|algorithm| algorithm.id == id);
        let Some(one) = place.and_then(|n| kind.all().get(n..=n)) else { return false };
        self.as_itself(|engine| engine.probe(kind, one)).is_ok_and(|found| !found.is_empty())
    }
}

impl XfrmEngine {
    /// Whether the kernel knows an attribute: it passes over those that it does not know.
    fn knows_attribute(&mut self, number: u16) -> Result<bool, Errno> {
        if let Some(known) = self.probed.attributes.get(&number) {
            return Ok(*known);
        }
        // None has both lengths. The kernel refuses the wrong one of what it knows before it looks at the SA.
        let payloads: [Option<&[u8]>; 3] = [None, Some(&[]), Some(&[0])];
        for payload in payloads {
            write_attribute_probe(number, payload, self.requests.number(), &mut self.writer);
        }
        let outcomes = self.as_itself(|engine| engine.requests.change_all(&mut engine.writer))?;
        // An answer that was lost is none.
        if let Some(Err(errno)) = outcomes.iter().find(|one| matches!(one, Err(Errno::ENOBUFS | Errno::ENOMEM))) {
            return Err(*errno);
        }
        let known = outcomes.iter().any(|outcome| Some(outcome) != outcomes.first());
        self.probed.attributes.insert(number, known);
        Ok(known)
    }
}

impl Judge for XfrmEngine {
    fn has_auth(&mut self, id: AuthAlgorithm) -> bool {
        self.has(Kind::Auth, id.0)
    }

    fn has_encrypt(&mut self, id: EncryptAlgorithm) -> bool {
        self.has(Kind::Encrypt, id.0) || (self.extras.aead && self.has(Kind::Aead, id.0))
    }

    fn has_compress(&mut self, id: CompressionAlgorithm) -> bool {
        self.has(Kind::Compress, id.0)
    }

    fn attribute(&mut self, number: u16) -> Result<(), Errno> {
        // What is not netlink's, kernels know as fields of their messages.
        let known = if number < OWN { self.knows_attribute(number)? } else { attribute_info(number).is_some() };
        if known {
            return Ok(());
        }
        self.explain(&Name(number).is_unknown());
        Err(Errno::EOPNOTSUPP)
    }

    fn explain(&mut self, why: &dyn fmt::Display) {
        self.why = Some(why.to_string());
    }

    fn new_reqid(&mut self) -> Option<u32> {
        self.unused_reqid()
    }

    /// The kernel's security module judges it when it gets the SA.
    fn label(&mut self, _request: &Message<'_>) -> Result<Option<SecurityLabel>, Errno> {
        Ok(None)
    }
}
