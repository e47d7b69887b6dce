//! What SAs and policies both have: a security label, and XFRM's attributes.

use pfkey_model::xfrm::{Xfrm, XfrmView};
use pfkey_wire::xfrm::{Carrier, Mark};
use pfkey_wire::{Message, Writer};

use super::utc;
use super::xfrm::{self, Report};
use crate::output::{Record, Value};

/// It of an SA or a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// Label.
    pub context: Option<Context>,
    /// What XFRM has beyond PF_KEY.
    pub xfrm: Xfrm,
}

impl Attached {
    /// From a message.
    pub fn of(message: &Message<'_>) -> (Self, Report) {
        let (xfrm, report) = xfrm::shown(&XfrmView::of_message(message));
        (Self { context: Context::of(message), xfrm }, report)
    }

    /// Whether a kernel that was told `wanted` shows this.
    pub fn is_shown_for(&self, wanted: &Self) -> bool {
        self.context == wanted.context && xfrm::is_shown_for(&self.xfrm, &wanted.xfrm)
    }

    /// Writes the label, which stands in different places of setkey's messages.
    pub fn write_label(&self, w: &mut Writer<'_>) {
        if let Some(context) = &self.context {
            w.sec_ctx(context.doi, context.alg, &context.text);
        }
    }

    /// Writes the rest behind everything else; of a name what belongs to one.
    pub fn write(&self, carrier: Carrier, w: &mut Writer<'_>) {
        match carrier {
            Carrier::Sa | Carrier::Policy => self.xfrm.write(w),
            Carrier::SaName => Xfrm::of_scope(self.xfrm.mark(), 0).write(w),
            Carrier::PolicyName => self.xfrm.policy_name().write(w),
        }
    }

    /// What is shown of it.
    pub fn record(&self, carrier: Carrier, report: Report) -> Record {
        let mut record = Record::new();
        if let Some(context) = &self.context {
            record.push(("label", Value::Text(context.label())));
        }
        let words = xfrm::words(&self.xfrm, carrier);
        if !words.is_empty() {
            record.push(("xfrm", Value::List(words)));
        }
        // What filters and programs look at most, as numbers.
        let (mark, if_id) = (self.xfrm.mark(), self.xfrm.if_id());
        if mark != Mark::NONE {
            let number = |n: u32| Value::Number(n.into());
            let mark = vec![("value", number(mark.value)), ("mask", number(mark.mask))];
            record.push(("mark", Value::Unsaid(Box::new(Value::Record(mark)))));
        }
        if if_id != 0 {
            record.push(("if_id", Value::Unsaid(Box::new(Value::Number(if_id.into())))));
        }
        if report.last_used != 0 {
            record.push(("last_used", Value::Text(utc(report.last_used))));
        }
        record
    }

    /// As setkey's options, or why it cannot be.
    pub fn words(&self, carrier: Carrier) -> Result<String, &'static str> {
        let context = self.context.as_ref().map(|c| c.words().ok_or("a label that the file language cannot hold"));
        let words = xfrm::words(&self.xfrm, carrier);
        Ok(words.iter().fold(context.transpose()?.unwrap_or_default(), |all, word| all + " -X " + word))
    }
}

/// A security label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Domain of interpretation.
    pub doi: u8,
    /// LSM.
    pub alg: u8,
    /// The label, its NUL included.
    pub text: Vec<u8>,
}

impl Context {
    /// The label of a message.
    fn of(message: &Message<'_>) -> Option<Self> {
        message.sec_ctx().map(|(fixed, text)| {
            let mut text = text.to_vec();
            // setkey sends the NUL, and the kernel puts one behind it: they mean one label.
            let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
            if text.iter().skip(end).all(|byte| *byte == 0) {
                text.truncate(end + 1);
            }
            Self { doi: fixed.doi, alg: fixed.alg, text }
        })
    }

    /// The label without its NUL.
    fn label(&self) -> String {
        String::from_utf8_lossy(self.text.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
    }

    /// As setkey's option; `None` for a label that a quoted string cannot hold.
    fn words(&self) -> Option<String> {
        let label = self.label();
        let faithful = label.len() + 1 == self.text.len() && !label.contains(['"', '\u{fffd}']);
        faithful.then(|| format!(" -ctx {} {} \"{label}\"", self.doi, self.alg))
    }
}
