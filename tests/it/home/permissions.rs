//! Who may see the keys: each way in which others could, refused by name with the command that mends it.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use toka_runtime::HomeError;

use super::Node;

fn chmod(path: &Path, mode: u32) {
    set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_key_that_others_may_touch_is_refused() {
    let node = Node::testing();
    for name in ["root.key", "event-0001.key", "event-0005.key", "operator-operator-0001.key"] {
        for bit in [0o040, 0o020, 0o010, 0o004, 0o002, 0o001] {
            let path = node.key(name);
            chmod(&path, 0o600 | bit);
            node.refuses(
                &format!("{}: others have access to it (its mode is 06{bit:02o})", path.display()),
                1,
                &format!("chmod 600 {}", path.display()),
            );
            chmod(&path, 0o600);
            node.open();
        }
    }
}

#[test]
fn a_folder_of_keys_that_others_may_enter_is_refused() {
    let node = Node::testing();
    let keys = node.dir.join("keys");
    for bit in [0o040, 0o020, 0o010, 0o004, 0o002, 0o001] {
        chmod(&keys, 0o700 | bit);
        node.refuses("keys: others have access to it", 1, &format!("chmod 700 {}", keys.display()));
    }
    chmod(&keys, 0o700);
    node.open();
}

#[test]
fn what_others_may_read_they_may_not_write() {
    let node = Node::testing();
    for path in [node.key("root.pub"), node.key("event-0001.grant"), node.dir.join("node.json"), node.dir.clone()] {
        let whole = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        chmod(&path, whole | 0o055);
        node.open();
        for bit in [0o020, 0o002] {
            chmod(&path, whole | bit);
            node.refuses("others have access to it", 1, &format!("chmod go-w {}", path.display()));
        }
        chmod(&path, whole);
    }
    node.open();
}

#[test]
fn the_key_is_looked_at_again_when_it_is_used() {
    let node = Node::testing();
    let home = node.open();
    chmod(&node.key("event-0001.key"), 0o640);
    let error = home.event_key(super::START_US).unwrap_err();
    assert!(matches!(error, HomeError::Exposed { mode: 0o640, .. }), "{error:?}");
}

#[test]
fn a_key_behind_a_link_is_refused() {
    let node = Node::testing();
    for name in ["root.key", "root.pub", "event-0001.key", "event-0002.pub", "event-0003.grant"] {
        let (path, elsewhere) = (node.key(name), node.dir.join("elsewhere"));
        std::fs::rename(&path, &elsewhere).unwrap();
        symlink(&elsewhere, &path).unwrap();
        node.refuses(
            &format!("{}: this is a symbolic link", path.display()),
            1,
            &format!("itself at {}", path.display()),
        );
        std::fs::remove_file(&path).unwrap();
        std::fs::rename(&elsewhere, &path).unwrap();
    }
}

#[test]
fn a_folder_of_keys_behind_a_link_is_refused_and_a_home_behind_one_is_not() {
    let node = Node::testing();
    let link = node.dir.with_file_name("link");
    symlink(&node.dir, &link).unwrap();
    toka_runtime::Home::open(&link).unwrap();
    std::fs::rename(node.dir.join("keys"), node.dir.join("elsewhere")).unwrap();
    symlink(node.dir.join("elsewhere"), node.dir.join("keys")).unwrap();
    node.refuses("keys: this is a symbolic link", 1, "put the file or folder itself");
}

#[test]
fn what_is_no_file_is_refused_without_waiting_for_it() {
    let node = Node::testing();
    let path = node.key("event-0001.key");
    std::fs::remove_file(&path).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    node.refuses("event-0001.key: it is no regular file", 8, "from a copy");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    node.refuses("event-0001.key: it is no regular file", 8, "from a copy");
    let node = Node::testing();
    std::fs::remove_dir_all(node.dir.join("keys")).unwrap();
    std::fs::write(node.dir.join("keys"), "").unwrap();
    node.refuses("keys: it is no folder", 8, "from a copy");
}

#[test]
fn somebody_elses_key_is_refused() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give files away");
        return;
    }
    let node = Node::testing();
    for path in [node.key("event-0001.key"), node.key("root.pub"), node.dir.join("keys"), node.dir.clone()] {
        std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
        node.refuses(
            &format!("{}: it belongs to the user with number 12345, not to 0", path.display()),
            1,
            &format!("chown 0 {}", path.display()),
        );
        std::os::unix::fs::chown(&path, Some(0), None).unwrap();
    }
    node.open();
}
