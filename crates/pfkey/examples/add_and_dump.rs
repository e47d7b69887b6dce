//! Adds an SA and shows all of them. `PFKEY_BACKEND=embedded` tries it without root.

use pfkey::{Cipher, Client, Hmac, Sa, SaType};

fn main() -> Result<(), pfkey::Error> {
    let mut keys = Client::open()?;
    let sa = Sa::esp([192, 0, 2, 1], [192, 0, 2, 2], 0x1000)
        .tunnel()
        .reqid(7)
        .encrypt(Cipher::AesCbc, &[1; 16])
        .authenticate(Hmac::Sha256, &[2; 32]);
    keys.add(&sa)?;
    for sa in keys.dump(SaType::ESP)? {
        println!("{}", sa?);
    }
    Ok(())
}
