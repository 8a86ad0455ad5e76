//! From a URL to the object store behind it.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;

use super::error::with_causes;
use super::{Remote, RemoteError, redact};
use crate::store::create_dir;

/// Whether the folder of a `file://` URL has to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Folder {
    MustExist,
    IsMade,
}

pub(super) fn open(url: &str, folder: Folder) -> Result<Remote, RemoteError> {
    let refuse = |reason: String| RemoteError::Url { url: redact(url), reason };
    let (scheme, rest) = url.split_once("://").ok_or_else(|| refuse(KNOWN.to_owned()))?;
    // A folder may be called anything; only a bucket's URL has places for credentials.
    if scheme != "file" && rest.contains(['?', '#', '@']) {
        return Err(refuse(
            "it may hold only a bucket and a path; credentials come from the environment, such as \
             AWS_ACCESS_KEY_ID"
                .to_owned(),
        ));
    }
    let (objects, prefix) = match scheme {
        "file" => open_folder(rest, folder).map(|objects| (objects, "")).map_err(refuse)?,
        "s3" | "gs" | "az" => {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(refuse("it names no bucket".to_owned()));
            }
            (open_cloud(scheme, bucket).map_err(refuse)?, prefix)
        }
        _ => return Err(refuse(KNOWN.to_owned())),
    };
    let prefix = Path::parse(prefix.trim_end_matches('/')).map_err(|e| refuse(e.to_string()))?;
    Ok(Remote::with_objects(objects, prefix, url.trim_end_matches('/')))
}

fn open_folder(path: &str, folder: Folder) -> Result<Arc<dyn ObjectStore>, String> {
    if !path.starts_with('/') {
        return Err("a folder is named by its full path, as in file:///mnt/backup".to_owned());
    }
    let path = std::path::Path::new(path);
    if folder == Folder::IsMade {
        create_dir(path).map_err(|error| error.to_string())?;
    } else if !path.is_dir() {
        return Err("there is no such folder; `retake push` makes it".to_owned());
    }
    let objects = LocalFileSystem::new_with_prefix(path).map_err(|error| with_causes(&error))?;
    Ok(Arc::new(objects))
}

#[cfg(feature = "cloud")]
fn open_cloud(scheme: &str, bucket: &str) -> Result<Arc<dyn ObjectStore>, String> {
    use object_store::aws::AmazonS3Builder;
    use object_store::azure::MicrosoftAzureBuilder;
    use object_store::gcp::GoogleCloudStorageBuilder;
    let objects = match scheme {
        "s3" => AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .build()
            .map(|objects| Arc::new(objects) as Arc<dyn ObjectStore>),
        "gs" => GoogleCloudStorageBuilder::from_env()
            .with_bucket_name(bucket)
            .build()
            .map(|objects| Arc::new(objects) as Arc<dyn ObjectStore>),
        _ => MicrosoftAzureBuilder::from_env()
            .with_container_name(bucket)
            .build()
            .map(|objects| Arc::new(objects) as Arc<dyn ObjectStore>),
    };
    objects.map_err(|error| with_causes(&error))
}

#[cfg(not(feature = "cloud"))]
fn open_cloud(scheme: &str, _bucket: &str) -> Result<Arc<dyn ObjectStore>, String> {
    Err(format!(
        "this build has no {scheme} backend; `cargo install --path . --features cloud` makes one \
         that has, and file:///folder works in every build"
    ))
}

const KNOWN: &str = "expected file:///folder, s3://bucket/prefix, gs://bucket/prefix or \
                     az://container/prefix";

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        open(url, Folder::MustExist).unwrap_err().to_string()
    }

    /// Guarantees: P1 - a URL with credentials is refused, and they are not repeated.
    #[test]
    fn urls_with_credentials_are_refused_and_not_shown() {
        for url in ["s3://key:secret@bucket/p", "az://c/p?sig=secret", "gs://b#secret"] {
            let message = refused(url);
            assert!(!message.contains("secret") && message.contains("environment"), "{message}");
        }
    }

    #[test]
    fn other_urls_say_what_is_expected() {
        for url in ["/mnt/backup", "http://host/", "s3:/bucket"] {
            assert!(refused(url).contains("expected file:///folder"), "{url}");
        }
        assert!(refused("file://relative").contains("full path"));
        assert!(refused("s3:///prefix").contains("no bucket"));
        assert!(refused("file:///no/such/folder").contains("no such folder"));
    }

    #[cfg(not(feature = "cloud"))]
    #[test]
    fn a_build_without_cloud_says_how_to_get_it() {
        assert!(refused("s3://bucket/prefix").contains("--features cloud"));
    }

    #[test]
    fn a_folder_for_writing_is_made_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("a/b");
        let remote = open(&format!("file://{}/", folder.display()), Folder::IsMade).unwrap();
        assert_eq!(remote.url(), format!("file://{}", folder.display()));
        assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
