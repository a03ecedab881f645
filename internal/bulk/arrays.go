package bulk

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"entgo.io/ent/dialect"
	"entgo.io/ent/schema/field"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent/migrate"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// On PostgreSQL, rows are an array for each column, so that a statement is the same for any number of rows and takes
// one round trip. An array is written as text, which the statement casts, so that no pooler needs to know its type.

// Unnest returns the rows of arrays as the table v with some columns, whose types are those of a table in ent/schema.
// The first array has the number of a placeholder.
func Unnest(first int, table string, columns []string) string {
	arrays := make([]string, len(columns))
	for i, name := range columns {
		of, ok := types()[table+"."+name]
		if !ok {
			panic("bulk: no column " + table + "." + name)
		}
		arrays[i] = fmt.Sprintf("CAST($%d AS %s[])", first+i, of)
	}
	return "unnest(" + strings.Join(arrays, ", ") + ") AS v(" + strings.Join(columns, ", ") + ")"
}

// UnnestNumbered is Unnest with a further column: the numbers of the rows, from 1 on.
func UnnestNumbered(first int, table string, columns []string) string {
	v := strings.Replace(Unnest(first, table, columns), " AS v(", " WITH ORDINALITY AS v(", 1)
	return strings.TrimSuffix(v, ")") + ", " + Number + ")"
}

// Number is a column that Unnest knows for every table: the number of a row in a list.
const Number = "number"

// types are the types of all columns on PostgreSQL.
var types = sync.OnceValue(func() map[string]string {
	of := map[field.Type]string{
		field.TypeUUID: "uuid", field.TypeTime: "timestamptz", field.TypeBool: "boolean", field.TypeBytes: "bytea",
		field.TypeString: "text", field.TypeEnum: "text", field.TypeInt: "bigint", field.TypeInt64: "bigint",
		field.TypeFloat64: "double precision", field.TypeJSON: "json",
	}
	all := map[string]string{}
	for _, table := range migrate.Tables {
		all[table.Name+"."+Number] = "bigint"
		for _, column := range table.Columns {
			all[table.Name+"."+column.Name] = cmp.Or(column.SchemaType[dialect.Postgres], of[column.Type])
		}
	}
	return all
})

// Arrays returns the columns of rows, each as one argument for Unnest.
func Arrays(columns int, rows [][]any) ([]any, error) {
	args := make([]any, columns)
	for c := range args {
		array := append(make([]byte, 0, 40*len(rows)), '{')
		for i, row := range rows {
			if i > 0 {
				array = append(array, ',')
			}
			if id, ok := row[c].(uuid.UUID); ok { // most cells are ids
				array = appendUUID(array, id)
				continue
			}
			value, err := driver.DefaultParameterConverter.ConvertValue(row[c])
			if err != nil {
				return nil, err
			}
			array = appendElement(array, value)
		}
		args[c] = string(append(array, '}'))
	}
	return args, nil
}

// appendUUID writes an id in its standard form.
func appendUUID(array []byte, id uuid.UUID) []byte {
	array = hex.AppendEncode(array, id[:4])
	for _, part := range [...][]byte{id[4:6], id[6:8], id[8:10], id[10:]} {
		array = hex.AppendEncode(append(array, '-'), part)
	}
	return array
}

// appendElement writes an element of an array, see "Array Input and Output Syntax" in PostgreSQL's documentation.
func appendElement(array []byte, value driver.Value) []byte {
	switch v := value.(type) {
	case nil:
		return append(array, "NULL"...)
	case int64:
		return strconv.AppendInt(array, v, 10)
	case float64:
		return strconv.AppendFloat(array, v, 'g', -1, 64)
	case bool:
		return strconv.AppendBool(array, v)
	case []byte:
		if v == nil {
			return append(array, "NULL"...)
		}
		return append(hex.AppendEncode(append(array, `"\\x`...), v), '"')
	case time.Time:
		return utc.Of(v).AppendFormat(array, time.RFC3339Nano)
	}
	return append(append(append(array, '"'), escaper.Replace(value.(string))...), '"') // there are no other types
}

var escaper = strings.NewReplacer(`"`, `\"`, `\`, `\\`)

// execArrays executes a statement whose arguments are the columns of rows.
func execArrays(ctx context.Context, tx Execer, query string, rows [][]any) (sql.Result, error) {
	args, err := Arrays(len(rows[0]), rows)
	if err != nil {
		return nil, err
	}
	return tx.ExecContext(ctx, query, args...)
}
