//! The statements that name a collection's own table, and what their rows are.
//!
//! A table name cannot be a bound parameter. These are the only statements put together at run
//! time, and only from integers: the collection's number and the width of its vectors, and from the
//! text here and in [`crate::store::filter`]. No text that came from outside ever meets SQL text
//! (guarantee V2).

use pgvector::Vector;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Postgres, QueryBuilder, Row as _};

use super::copy::COLUMNS;
use super::index::Index;
use crate::document::{Chunk, Hit};
use crate::store::Wanted;
use crate::store::filter::{Dialect, push_condition};
use crate::store::vector::{column, count, similarity, small_count};

/// The chunks table of one collection.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChunksTable {
    /// Number of the collection.
    pub(super) id: i64,
    /// Width of its vectors.
    pub(super) dim: u16,
}

/// A statement made of integers and of the text in this file.
type Statement = AssertSqlSafe<String>;

impl ChunksTable {
    /// Makes the table. Ids are compared by their bytes, so the order of equal distances does not
    /// depend on the database's language.
    pub(super) fn create(self) -> Statement {
        let Self { id, dim } = self;
        AssertSqlSafe(format!(
            "CREATE TABLE retake.chunks_{id} (
                id text COLLATE \"C\" PRIMARY KEY, document_id text COLLATE \"C\" NOT NULL,
                ordinal bigint NOT NULL, start_char bigint NOT NULL, end_char bigint NOT NULL,
                tokens bigint NOT NULL, embedding vector({dim}) NOT NULL, text text NOT NULL)"
        ))
    }

    /// Makes the index by which old versions are found.
    pub(super) fn create_document_index(self) -> Statement {
        AssertSqlSafe(format!("CREATE INDEX ON retake.chunks_{} (document_id)", self.id))
    }

    /// Drops the table.
    pub(super) fn drop(self) -> Statement {
        AssertSqlSafe(format!("DROP TABLE IF EXISTS retake.chunks_{}", self.id))
    }

    /// Deletes the chunks of documents: `$1` their ids.
    pub(super) fn delete_documents(self) -> Statement {
        AssertSqlSafe(format!("DELETE FROM retake.chunks_{} WHERE document_id = ANY($1)", self.id))
    }

    /// Loads chunks.
    pub(super) fn copy_in(self) -> String {
        format!("COPY retake.chunks_{} ({COLUMNS}) FROM STDIN (FORMAT binary)", self.id)
    }

    /// Counts chunks.
    pub(super) fn count(self) -> Statement {
        AssertSqlSafe(format!("SELECT count(*) FROM retake.chunks_{}", self.id))
    }

    /// Gives the planner fresh statistics.
    pub(super) fn analyze(self) -> Statement {
        AssertSqlSafe(format!("ANALYZE retake.chunks_{}", self.id))
    }

    /// Its name.
    pub(super) fn name(self) -> String {
        format!("retake.chunks_{}", self.id)
    }

    /// Whether pgvector can index vectors this wide at all.
    pub(super) fn can_be_indexed(self) -> bool {
        self.dim <= HALFVEC_INDEX_DIM_MAX
    }

    /// Builds a search index. Its operator class is the metric of the searches below; another would
    /// never be used.
    pub(super) fn create_index(self, index: Index) -> Statement {
        let (column, class) = if self.dim <= VECTOR_INDEX_DIM_MAX {
            ("embedding".to_owned(), "vector_cosine_ops")
        } else {
            (format!("(embedding::halfvec({}))", self.dim), "halfvec_cosine_ops")
        };
        let (id, method) = (self.id, index.method());
        AssertSqlSafe(format!(
            "CREATE INDEX chunks_{id}_{method} ON retake.chunks_{id} USING {method} ({column} {class})
             WITH ({})",
            index.parameters()
        ))
    }

    /// Drops a search index by the name that the catalog gives it.
    pub(super) fn drop_index(self, name: &str) -> Statement {
        AssertSqlSafe(format!("DROP INDEX retake.\"{}\"", name.replace('"', "\"\"")))
    }

    /// The vectors of the chunks `$1`.
    pub(super) fn vectors(self) -> Statement {
        let id = self.id;
        AssertSqlSafe(format!("SELECT id, embedding FROM retake.chunks_{id} WHERE id = ANY($1)"))
    }

    /// The chunks `$1`, without their vectors.
    pub(super) fn chunks(self) -> Statement {
        AssertSqlSafe(format!(
            "SELECT {CHUNK_COLUMNS}
             FROM retake.chunks_{} WHERE id = ANY($1)",
            self.id
        ))
    }

    /// The chunks of the documents `$1`, with their vectors, in their order.
    pub(super) fn chunks_of_documents(self) -> Statement {
        AssertSqlSafe(format!(
            "SELECT {CHUNK_COLUMNS}, embedding
             FROM retake.chunks_{} WHERE document_id = ANY($1) ORDER BY document_id, ordinal",
            self.id
        ))
    }

    /// Exact search. NaN is the distance of a vector of length 0, which is neither near nor far.
    pub(super) fn search_exact(self, vector: &[f32], wanted: Wanted<'_>) -> QueryBuilder<Postgres> {
        let mut search = QueryBuilder::new(format!(
            "SELECT {CHUNK_COLUMNS}, distance FROM (
                SELECT c.*, coalesce(nullif(c.embedding <=> "
        ));
        search.push_bind(Vector::from(vector.to_vec()));
        search.push(format!(", 'NaN'), 1) AS distance FROM retake.chunks_{} AS c", self.id));
        self.push_filter(&mut search, wanted);
        search.push(") AS chunks ORDER BY distance, id LIMIT ");
        search.push_bind(column(wanted.top_k as u64));
        search
    }

    /// Search by the index. The inner query has the only form an index of vectors answers; the outer
    /// one restores the order that an iterative scan relaxes (`+ 0` keeps PostgreSQL 17 from
    /// trusting the inner order).
    pub(super) fn search_indexed(
        self,
        vector: &[f32],
        wanted: Wanted<'_>,
    ) -> QueryBuilder<Postgres> {
        let order = if self.dim <= VECTOR_INDEX_DIM_MAX {
            "c.embedding <=> $1".to_owned()
        } else {
            format!("c.embedding::halfvec({0}) <=> $1::halfvec({0})", self.dim)
        };
        let mut search = QueryBuilder::new(
            "WITH nearest AS MATERIALIZED (
                SELECT c.id, c.document_id, c.ordinal, c.start_char, c.end_char, c.tokens, c.text,
                       c.embedding <=> ",
        );
        // It is `$1`, which the order names again.
        search.push_bind(Vector::from(vector.to_vec()));
        search.push(format!(" AS distance FROM retake.chunks_{} AS c", self.id));
        self.push_filter(&mut search, wanted);
        search.push(format!(" ORDER BY {order} LIMIT "));
        search.push_bind(column(wanted.top_k as u64));
        search.push(") SELECT * FROM nearest ORDER BY distance + 0, id");
        search
    }

    /// Appends the documents `d` of the chunks `c`, and what has to hold of both.
    pub(super) fn push_filter(self, query: &mut QueryBuilder<Postgres>, wanted: Wanted<'_>) {
        let Some(filter) = wanted.filter else { return };
        query.push(format!(
            " JOIN retake.documents AS d ON d.collection = {} AND d.id = c.document_id WHERE ",
            self.id
        ));
        push_condition(query, filter.condition(), Dialect::Postgres);
    }
}

/// A chunk with its similarity, of a row that has a `distance`.
pub(super) fn hit_from(row: &PgRow) -> Result<Hit, sqlx::Error> {
    Ok(Hit::new(chunk_from(row)?, similarity(row.try_get("distance")?)))
}

/// A chunk, of a row with its columns.
pub(super) fn chunk_from(row: &PgRow) -> Result<Chunk, sqlx::Error> {
    Ok(Chunk {
        id: row.try_get("id")?,
        document_id: row.try_get("document_id")?,
        ordinal: small_count(row.try_get("ordinal")?),
        text: row.try_get("text")?,
        start_char: count(row.try_get("start_char")?),
        end_char: count(row.try_get("end_char")?),
        tokens: small_count(row.try_get("tokens")?),
    })
}

/// The columns of a [`Chunk`].
pub(super) const CHUNK_COLUMNS: &str =
    "id, document_id, ordinal, start_char, end_char, tokens, text";
/// The widest `vector` an HNSW index takes.
const VECTOR_INDEX_DIM_MAX: u16 = 2000;
/// The widest `halfvec` an HNSW index takes; wider collections are searched exactly.
const HALFVEC_INDEX_DIM_MAX: u16 = 4000;
