//! What the golden tests share: the data, and sockaddrs from it.
#![allow(dead_code)]

use serde_json::Value;

mod byte_order;

#[allow(unused_imports)]
pub use byte_order::{native, native_algorithm, native_extension};

/// The lines of a golden file.
pub fn golden(name: &str) -> Vec<Value> {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    text.lines().map(|line| serde_json::from_str(line).expect("a golden line is JSON")).collect()
}

/// Hexadecimal digits, blanks between them ignored.
pub fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|d| (d[0] * 16 + d[1]) as u8).collect()
}

/// A sockaddr's bytes; `None` for null.
pub fn sockaddr(value: &Value) -> Option<Vec<u8>> {
    let family = value.get("fam")?.as_u64()? as u16;
    let port = value["port"].as_u64().unwrap_or(0) as u16;
    let mut bytes = family.to_ne_bytes().to_vec();
    bytes.extend(port.to_be_bytes());
    match family {
        2 => {
            let ip: std::net::Ipv4Addr = value["ip"].as_str()?.parse().ok()?;
            bytes.extend(ip.octets());
            bytes.extend([0; 8]);
        }
        10 => {
            let ip: std::net::Ipv6Addr = value["ip"].as_str()?.parse().ok()?;
            bytes.extend((value["flowinfo_be"].as_u64().unwrap_or(0) as u32).to_be_bytes());
            bytes.extend(ip.octets());
            bytes.extend((value["scope_id"].as_u64().unwrap_or(0) as u32).to_ne_bytes());
        }
        _ => bytes.resize(16, 0),
    }
    Some(bytes)
}
