//! How much memory is free, where the system tells: on Linux that of the machine, and what its control groups leave.

use std::path::Path;

/// Half of what is free; without a limit where the system does not tell.
pub(super) fn share() -> usize {
    free(Path::new("/")).map_or(usize::MAX, |bytes| usize::try_from(bytes / 2).unwrap_or(usize::MAX))
}

/// Bytes that are free, in a system whose files begin at `root`.
fn free(root: &Path) -> Option<u64> {
    let machine = field(&root.join("proc/meminfo"), "MemAvailable:")?.checked_mul(1024)?;
    let group = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let group = group.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let mounted = root.join("sys/fs/cgroup");
    // Every group on the way up has a limit of its own.
    let place = mounted.join(group);
    let groups = place.ancestors().take_while(|folder| folder.starts_with(&mounted));
    let left = groups.filter_map(|folder| left(folder, ("memory.max", "memory.current"), "inactive_file"));
    let first_version = mounted.join("memory");
    let before = left_of_first_version(&first_version);
    left.chain(before).chain([machine]).min()
}

fn left_of_first_version(folder: &Path) -> Option<u64> {
    left(folder, ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_inactive_file")
}

/// What a control group leaves: cached files that nobody has used lately give way.
fn left(folder: &Path, (limit, used): (&str, &str), cached: &str) -> Option<u64> {
    let number = |name: &str| std::fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    let (limit, used) = (number(limit)?, number(used)?);
    let cached = field(&folder.join("memory.stat"), cached).unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(cached)))
}

/// The number after a name, of a file with one of both on each line.
fn field(path: &Path, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_counts() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(free(root.path()), None);
        put("proc/meminfo", "MemTotal:  64 kB\nMemFree:  1 kB\nMemAvailable:   40 kB\n");
        assert_eq!(free(root.path()), Some(40 * 1024));
        put("proc/self/cgroup", "0::/outer/inner\n");
        put("sys/fs/cgroup/outer/inner/memory.max", "max\n");
        put("sys/fs/cgroup/outer/inner/memory.current", "500\n");
        assert_eq!(free(root.path()), Some(40 * 1024));
        put("sys/fs/cgroup/outer/memory.max", "9000\n");
        put("sys/fs/cgroup/outer/memory.current", "5000\n");
        put("sys/fs/cgroup/outer/memory.stat", "anon 3000\ninactive_file 1500\n");
        assert_eq!(free(root.path()), Some(5500));
        put("sys/fs/cgroup/memory/memory.limit_in_bytes", "3000");
        put("sys/fs/cgroup/memory/memory.usage_in_bytes", "4000");
        assert_eq!(free(root.path()), Some(0));
    }
}
