//! The generator judged: what it says of a broker that keeps its promises, and of some that do not.

#[cfg(test)]
mod faulty;
#[cfg(test)]
mod smoke;
