//! Files and folders as they are at one moment, and the changes that make the next.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;

use crate::disk::Kind;

/// A file or folder, whatever its names.
pub(super) type NodeId = u64;

/// What is on a disk. Cheap to copy.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    nodes: BTreeMap<NodeId, Node>,
}

#[derive(Debug, Clone)]
enum Node {
    File(Arc<Vec<u8>>),
    Folder(Arc<BTreeMap<OsString, NodeId>>),
}

/// A change that a power cut may undo, alone or with others.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// Bytes of a file.
    Write { file: NodeId, offset: usize, bytes: Arc<[u8]> },
    /// The file is emptied.
    Truncate { file: NodeId },
    /// A new name of something new.
    Make { folder: NodeId, name: OsString, node: NodeId, kind: Kind },
    /// Another name, in place of what has it.
    Rename { from: (NodeId, OsString), to: (NodeId, OsString), node: NodeId },
    /// A name goes.
    Remove { folder: NodeId, name: OsString },
}

impl Change {
    /// The file whose flush makes it durable.
    pub(super) fn file(&self) -> Option<NodeId> {
        match self {
            Self::Write { file, .. } | Self::Truncate { file } => Some(*file),
            _ => None,
        }
    }

    /// The folders whose flushes make it durable.
    pub(super) fn folders(&self) -> Vec<NodeId> {
        match self {
            Self::Make { folder, .. } | Self::Remove { folder, .. } => vec![*folder],
            Self::Rename { from, to, .. } if from.0 == to.0 => vec![from.0],
            Self::Rename { from, to, .. } => vec![from.0, to.0],
            _ => Vec::new(),
        }
    }
}

impl Image {
    /// A disk with an empty root folder.
    pub(crate) fn empty() -> Self {
        Self { nodes: BTreeMap::from([(ROOT, Node::Folder(Arc::default()))]) }
    }

    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { file, offset, bytes } => {
                let content = self.file_mut(*file);
                let end = offset + bytes.len();
                if content.len() < end {
                    // What was never written before it reads as zeros.
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
            }
            Change::Truncate { file } => self.file_mut(*file).clear(),
            Change::Make { folder, name, node, kind } => {
                self.nodes.entry(*node).or_insert_with(|| match kind {
                    Kind::Folder => Node::Folder(Arc::default()),
                    _ => Node::File(Arc::default()),
                });
                self.folder_mut(*folder).insert(name.clone(), *node);
            }
            Change::Rename { from, to, node } => {
                self.nodes.entry(*node).or_insert_with(|| Node::File(Arc::default()));
                let source = self.folder_mut(from.0);
                if source.get(&from.1) == Some(node) {
                    source.remove(&from.1);
                }
                self.folder_mut(to.0).insert(to.1.clone(), *node);
            }
            Change::Remove { folder, name } => drop(self.folder_mut(*folder).remove(name)),
        }
    }

    fn file_mut(&mut self, file: NodeId) -> &mut Vec<u8> {
        match self.nodes.entry(file).or_insert_with(|| Node::File(Arc::default())) {
            Node::File(content) => Arc::make_mut(content),
            Node::Folder(_) => panic!("node {file} is a folder"),
        }
    }

    fn folder_mut(&mut self, folder: NodeId) -> &mut BTreeMap<OsString, NodeId> {
        match self.nodes.entry(folder).or_insert_with(|| Node::Folder(Arc::default())) {
            Node::Folder(names) => Arc::make_mut(names),
            Node::File(_) => panic!("node {folder} is a file"),
        }
    }

    /// What a path names.
    pub(super) fn find(&self, path: &Path) -> Option<NodeId> {
        let mut node = ROOT;
        for part in path.components() {
            if let std::path::Component::Normal(name) = part {
                node = *self.names(node)?.get(name)?;
            }
        }
        Some(node)
    }

    pub(super) fn kind(&self, node: NodeId) -> Kind {
        match self.nodes.get(&node) {
            Some(Node::Folder(_)) => Kind::Folder,
            _ => Kind::File,
        }
    }

    pub(super) fn names(&self, folder: NodeId) -> Option<&BTreeMap<OsString, NodeId>> {
        match self.nodes.get(&folder)? {
            Node::Folder(names) => Some(names),
            Node::File(_) => None,
        }
    }

    pub(super) fn bytes(&self, file: NodeId) -> Option<&[u8]> {
        match self.nodes.get(&file)? {
            Node::File(content) => Some(content),
            Node::Folder(_) => None,
        }
    }

    /// One past the highest node.
    pub(super) fn next_node(&self) -> NodeId {
        self.nodes.keys().next_back().map_or(0, |last| last + 1)
    }

    /// The same with a file in a folder that is there.
    pub(crate) fn with_file(&self, folder: &Path, name: &str, bytes: &[u8]) -> Option<Self> {
        let folder = self.find(folder)?;
        let mut image = self.clone();
        let node = self.next_node();
        let name = OsString::from(name);
        image.apply(&Change::Make { folder, name, node, kind: Kind::File });
        image.apply(&Change::Write { file: node, offset: 0, bytes: bytes.into() });
        Some(image)
    }

    /// The same for two images exactly if all names and bytes that can be reached are the same.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        self.hash(ROOT, OsStr::new(""), &mut hasher);
        *hasher.finalize().as_bytes()
    }

    fn hash(&self, node: NodeId, name: &OsStr, hasher: &mut blake3::Hasher) {
        let name = name.as_encoded_bytes();
        hasher.update(&name.len().to_le_bytes()).update(name);
        match self.nodes.get(&node) {
            Some(Node::File(content)) => {
                hasher.update(b"file").update(&content.len().to_le_bytes()).update(content);
            }
            Some(Node::Folder(names)) => {
                hasher.update(b"folder").update(&names.len().to_le_bytes());
                for (name, node) in &**names {
                    self.hash(*node, name, hasher);
                }
            }
            None => drop(hasher.update(b"nothing")),
        }
    }
}

const ROOT: NodeId = 0;
