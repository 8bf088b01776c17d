//! The mask that a client lays over every payload.

/// Takes the mask off, in place, and returns it turned to where the next byte continues.
pub(super) fn unmask(payload: &mut [u8], mask: [u8; 4]) -> [u8; 4] {
    let [a, b, c, d] = mask;
    let twice = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ twice).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
    let mut next = mask;
    next.rotate_left(rest.len() % 4);
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_unmasks_alike() {
        let payload: Vec<u8> = (0..100).collect();
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let keyed = payload.iter().enumerate().map(|(n, byte)| byte ^ mask[n % 4]);
        let keyed: Vec<u8> = keyed.collect();
        for cut in 0..=payload.len() {
            let mut bytes = keyed.clone();
            let (head, tail) = bytes.split_at_mut(cut);
            let next = unmask(head, mask);
            let end = unmask(tail, next);
            assert_eq!(bytes, payload, "cut at {cut}");
            assert_eq!(end, mask, "100 is a multiple of four");
        }
    }
}
